#include "model/feed_forward.h"

#include "base/math.h"

namespace cachalot {

ComputeView<2> ExpertRowFormat::values(View<std::byte, 2> rows) const {
  const auto element_bytes = static_cast<int64_t>(dtype_size(compute_dtype));
  return ComputeView<2>(rows.data(), compute_dtype, {rows.extent(0), hidden}, {row_bytes() / element_bytes, 1});
}

QuantizedRows ExpertRowFormat::quantized(View<std::byte, 2> rows) const {
  const int64_t bytes = row_bytes(), num_rows = rows.extent(0);
  return {.values = View<int8_t, 2>(reinterpret_cast<int8_t*>(rows.data()), {num_rows, hidden}, {bytes, 1}),
          .scales = View<float, 2>(reinterpret_cast<float*>(rows.data() + scales_offset()),
                                   {num_rows, ceil_div(hidden, group)}, {bytes / 4, 1}),
          .group = group};
}

ExchangeLayout exchange_layout(const ModelConfig& config, const ModelSettings& settings) {
  // With expert parallelism a rank brings its own rows, else every row of the step (to itself).
  const int64_t max_rows = settings.expert_parallel ? ceil_div(settings.max_rows, settings.tp_size) : settings.max_rows;
  return ExchangeLayout({.placement = settings.placement,
                         .top_k = config.num_experts_per_token,
                         .hidden_size = config.hidden_size,
                         .compute_dtype = settings.compute_dtype,
                         .row_bytes = ExpertRowFormat::max_row_bytes(config.hidden_size, settings.compute_dtype),
                         .max_rows = max_rows,
                         .max_bytes = settings.exchange_max_bytes});
}

namespace {

void tell_work(const ArrivedRows& arrived, TraceScope& span) {
  int num_used = 0;
  for (size_t expert = 1; expert < arrived.offsets.size(); expert++)
    num_used += arrived.offsets[expert] > arrived.offsets[expert - 1];
  span.set_rows(arrived.pair_rows.extent(0));
  span.set_experts(num_used);
}

}  // namespace

LinearInput FeedForward::gate(const FeedForwardWeights& weights, InputRows& input, int64_t num_rows) {
  const LinearInput rows = input.for_linear(weights.gate_up);
  const int group = weights.down.input_group;
  View<float, 2> product;
  QuantizedRows quantized;
  if (group) {
    quantized = workspace_.quantized_product.rows(num_rows, weights.width, group);
  } else {
    product = View<float, 2>(workspace_.intermediate.data(), num_rows, weights.width);
  }
  ops_.gated_linear(rows, weights.gate_up.matrix, product, quantized);
  return {.values = product, .quantized = quantized};
}

void FeedForward::down(const FeedForwardWeights& weights, const LinearInput& product, View<float, 2> out) {
  ops_.linear(product, weights.down.matrix, out);
}

Status FeedForward::dense(const FeedForwardWeights& weights, const ModelBatch& batch, View<float, 2> normed,
                          int layer) {
  const TraceScope span(batch.trace, "dense", layer);
  const int64_t num_rows = batch.num_rows();
  ASSIGN_OR_RETURN(const auto rows,
                   parallel_.gather(normed, num_rows, workspace_.gathered,
                                    {.operation = "dense all-gather", .step = batch.step, .layer = layer}));
  const View<float, 2> own = workspace_.delta.rows(0, normed.extent(0));
  const View<float, 2> out = parallel_.partial(own, num_rows);
  InputRows input(ops_, workspace_, rows);
  down(weights, gate(weights, input, num_rows), out);
  return parallel_.scatter_sum(out, own, {.operation = "dense reduce-scatter", .step = batch.step, .layer = layer});
}

Status FeedForward::moe(const MoeWeights& weights, const ModelBatch& batch, View<float, 2> normed, int layer,
                        int moe_layer) {
  const TraceScope span(batch.trace, "mixture of experts", layer);
  const View<float, 2> own = workspace_.delta.rows(0, normed.extent(0));
  if (settings_.expert_parallel || parallel_.size() == 1) {
    return experts(weights, batch, normed, parallel_.own_begin(batch.num_rows()), own, layer, moe_layer);
  }
  // Every rank has a slice of every expert: all rows on every rank, then the sum of the slices.
  const int64_t num_rows = batch.num_rows();
  ASSIGN_OR_RETURN(const auto rows,
                   parallel_.gather(normed, num_rows, workspace_.gathered,
                                    {.operation = "experts all-gather", .step = batch.step, .layer = layer}));
  const View<float, 2> partial = parallel_.partial(own, num_rows);
  RETURN_IF_ERROR(experts(weights, batch, rows, 0, partial, layer, moe_layer));
  return parallel_.scatter_sum(partial, own,
                               {.operation = "experts reduce-scatter", .step = batch.step, .layer = layer});
}

Status FeedForward::experts(const MoeWeights& weights, const ModelBatch& batch, View<float, 2> rows, int64_t first_row,
                            View<float, 2> out, int layer, int moe_layer) {
  const int64_t num_rows = rows.extent(0), top_k = config_.num_experts_per_token;
  route(weights, batch, rows, first_row, layer, moe_layer);

  const ExpertRowFormat format{config_.hidden_size, weights.input_group, settings_.compute_dtype};
  const View<std::byte, 2> sent(workspace_.expert_rows.data(), num_rows, format.row_bytes());
  if (format.group) {
    ops_.quantize(rows, format.quantized(sent));
  } else {
    ops_.to_compute(rows, format.values(sent));
  }
  RETURN_IF_ERROR(
      exchange_->dispatch({.rows = sent, .expert_ids = workspace_.expert_ids.rows(0, num_rows), .layer = moe_layer},
                          {.operation = "expert exchange", .step = batch.step, .layer = layer}));

  // The shared expert works while messages fly.
  if (weights.shared) {
    const TraceScope span(batch.trace, "shared expert", layer);
    const bool same_rows = format.group && weights.shared->gate_up.input_group == format.group;
    InputRows input =
        same_rows ? InputRows(ops_, workspace_, rows, format.quantized(sent)) : InputRows(ops_, workspace_, rows);
    const LinearInput product = gate(*weights.shared, input, num_rows);
    RETURN_IF_ERROR(exchange_->progress());
    down(*weights.shared, product, out);
  }

  for (ArrivedRows arrived;;) {
    ASSIGN_OR_RETURN(const bool more, exchange_->next(arrived));
    if (!more) break;
    TraceScope span(batch.trace, kExpertsSpan, layer);
    if (span) tell_work(arrived, span);
    ops_.experts({.rows = arrived_input(format, arrived),
                  .pair_rows = arrived.pair_rows,
                  .out_rows = arrived.result_rows,
                  .offsets = arrived.offsets,
                  .gate_up = weights.gate_up,
                  .down = weights.down,
                  .width = weights.width,
                  .out = arrived.results});
  }
  ASSIGN_OR_RETURN(const CombinedRows combined, exchange_->combine());
  CHECK(combined.row_ids.extent(1) == top_k);
  const TraceScope span(batch.trace, "weighted sum", layer);
  ops_.combine({.expert_rows = combined.results,
                .row_ids = combined.row_ids,
                .weights = workspace_.expert_weights.rows(0, num_rows),
                .sum = out,
                .accumulate = weights.shared.has_value()});
  return {};
}

void FeedForward::route(const MoeWeights& weights, const ModelBatch& batch, View<float, 2> rows, int64_t first_row,
                        int layer, int moe_layer) {
  const TraceScope span(batch.trace, kGateSpan, layer);
  const int64_t num_rows = rows.extent(0);
  const View<float, 2> logits = workspace_.router_logits.rows(0, num_rows);
  const View<int32_t, 2> ids = workspace_.expert_ids.rows(0, num_rows);
  ops_.linear({.values = rows, .quantized = {}}, weights.router, logits);
  View<const int32_t, 2> forced;
  if (!batch.forced_expert_ids.empty()) forced = batch.forced_expert_ids[moe_layer].rows(first_row, num_rows);
  RoutingGroups groups = RoutingGroups::kNone;
  if (config_.topk_method == TopkMethod::kGroupLimitedGreedy) groups = RoutingGroups::kByMaximum;
  if (config_.topk_method == TopkMethod::kNoauxTc) groups = RoutingGroups::kByTopTwo;
  // As DeepSeek's own code does it: V2 either normalizes or scales, V3 does both; one expert alone is not normalized.
  const bool normalize = config_.norm_topk_prob && config_.num_experts_per_token > 1;
  const bool scale = !normalize || config_.family != ModelFamily::kDeepseekV2;
  ops_.route({.logits = logits,
              .choice_bias = weights.choice_bias,
              .score = config_.scoring == ScoringFunction::kSigmoid ? RoutingScore::kSigmoid : RoutingScore::kSoftmax,
              .groups = groups,
              .num_groups = config_.num_groups,
              .topk_groups = config_.topk_groups,
              .normalize = normalize,
              .scaling_factor = scale ? static_cast<float>(config_.routed_scaling_factor) : 1.f,
              .forced_ids = forced,
              .ids = ids,
              .weights = workspace_.expert_weights.rows(0, num_rows)});
  if (batch.chosen_expert_ids.empty()) return;
  const View<int32_t, 2> chosen = batch.chosen_expert_ids[moe_layer];
  for (int64_t row = 0; row < num_rows; row++)
    std::copy_n(ids.row(row), ids.extent(1), chosen.row(first_row + row));  // host: to compare routings
}

LinearInput FeedForward::arrived_input(const ExpertRowFormat& format, const ArrivedRows& arrived) const {
  const int64_t num_rows = arrived.rows.extent(0);
  CHECK(arrived.rows.extent(1) == format.row_bytes() && arrived.rows.is_contiguous());
  const View<std::byte, 2> rows(const_cast<std::byte*>(arrived.rows.data()), num_rows, format.row_bytes());
  if (format.group) return {.values = {}, .quantized = format.quantized(rows)};
  if (settings_.float32()) return {.values = format.values(rows).as<float>(), .quantized = {}};
  const View<float, 2> values = workspace_.arrived.rows(0, num_rows);
  ops_.from_compute(format.values(rows), values);
  return {.values = values, .quantized = {}};
}

}  // namespace cachalot
