#include "model/deepseek.h"

#include <algorithm>

namespace cachalot {
namespace {

constexpr int kLogitsRoot = 0;  // of the group: who samples

}  // namespace

OpsLimits DeepseekModel::ops_limits(const ModelConfig& config, const ModelSettings& settings) {
  const int64_t heads = config.num_heads / settings.tp_size;
  const int64_t shared_width = int64_t{config.num_shared_experts} * config.moe_intermediate_size;
  const int64_t width =
      std::max({int64_t{config.intermediate_size}, shared_width, int64_t{config.moe_intermediate_size}});
  int64_t max_rows = std::max(settings.max_rows, kContextChunk), max_pairs = 0;
  if (config.num_experts > 0) {
    const ExchangeLayout layout = exchange_layout(config, settings);
    max_rows = std::max(max_rows, layout.max_arrived_rows());
    max_pairs = layout.max_arrived_pairs();
  }
  return {.max_rows = max_rows,
          .max_pairs = max_pairs,
          .max_in_features = std::max({int64_t{config.hidden_size}, width, heads * config.v_head_dim,
                                       int64_t{config.q_lora_rank}, int64_t{config.kv_lora_rank}}),
          .max_width = width,
          .max_heads = heads,
          .max_head_dim = std::max(config.qk_head_dim(), config.v_head_dim),
          .max_kv_lora_rank = config.kv_lora_rank,
          .max_positions = settings.max_positions,
          .max_index_heads = config.indexer ? config.indexer->num_heads : 0,
          .max_index_dim = config.indexer ? config.indexer->head_dim : 0};
}

Result<ModelMemory> DeepseekModel::plan(const ModelConfig& config, const ModelSettings& settings,
                                        const WeightCatalog& catalog, int num_threads) {
  if (config.num_experts > kMaxExperts || config.num_experts_per_token > kMaxTopK) {
    return make_error(ErrorCode::kUnsupported,
                      "{}: {} experts of which {} a token; at most {} of which {} are supported", catalog.name(),
                      config.num_experts, config.num_experts_per_token, kMaxExperts, kMaxTopK);
  }
  if (config.num_heads % settings.tp_size != 0)
    return make_error(ErrorCode::kInvalidArgument,
                      "{} attention heads cannot be shared out evenly over {} tensor-parallel ranks", config.num_heads,
                      settings.tp_size);
  if (config.num_experts > 0)
    CHECK(settings.placement && settings.placement->shape() == placement_shape(config, settings.ep_size));
  WeightPacker planner = WeightPacker::planner(settings);
  ASSIGN_OR_RETURN(const ModelWeights weights, load_weights(config, settings, catalog, planner));
  const auto with_experts = std::ranges::find_if(weights.layers, [](const LayerWeights& layer) { return !!layer.moe; });
  std::vector<int32_t> expert_inputs, first_experts;
  for (int moe_layer = 0; const LayerWeights& layer : weights.layers) {
    expert_inputs.push_back(layer.moe ? layer.moe->input_group : 0);
    const std::span slots =
        layer.moe ? settings.placement->slots(moe_layer++, settings.ep_rank) : std::span<const int32_t>();
    first_experts.push_back(slots.empty() ? 0 : std::max(slots.front(), 0));
  }
  const int64_t exchange_bytes = config.num_experts > 0 ? exchange_layout(config, settings).bytes() : 0;
  return ModelMemory{.weight_bytes = planner.bytes(),
                     .workspace_bytes = Workspace::bytes(config, settings),
                     .scratch_bytes = ops_scratch_bytes(settings.isa, ops_limits(config, settings), num_threads),
                     .rope_bytes = Rope::table_bytes(config, settings.max_positions),
                     .weights_by_kind = planner.bytes_by_kind(),
                     .exchange_bytes = static_cast<size_t>(exchange_bytes),
                     .reduce_bytes = static_cast<size_t>(max_reduced_bytes(config, settings) * (settings.tp_size - 1)),
                     .cache_bytes = cache_bytes_of_token(config, settings.compute_dtype),
                     .expert_input_group = with_experts == weights.layers.end() ? 0 : with_experts->moe->input_group,
                     .expert_inputs = std::move(expert_inputs),
                     .first_experts = std::move(first_experts)};
}

DeepseekModel::DeepseekModel(const ModelConfig& config, const ModelSettings& settings, Ops ops, Workspace workspace,
                             Rope rope, Group& tensor_group, ExpertExchange* exchange)
    : config_(config),
      settings_(settings),
      ops_(std::move(ops)),
      workspace_(std::move(workspace)),
      rope_(std::move(rope)),
      parallel_(tensor_group, ops_, workspace_, settings.compute_dtype),
      attention_(config_, ops_, workspace_, parallel_, rope_.table(), Rope::softmax_scale(config)),
      feed_forward_(config_, settings_, ops_, workspace_, parallel_, exchange) {}

Result<std::unique_ptr<DeepseekModel>> DeepseekModel::load(const ModelConfig& config, const ModelSettings& settings,
                                                           const WeightCatalog& catalog, Device& device,
                                                           Group& tensor_group, ExpertExchange* exchange,
                                                           WeightPacker::Progress progress) {
  ASSIGN_OR_RETURN(Ops ops, Ops::create(settings.isa, device, ops_limits(config, settings)));
  ASSIGN_OR_RETURN(Workspace workspace, Workspace::create(config, settings));
  ASSIGN_OR_RETURN(Rope rope, Rope::create(config, settings.max_positions));
  std::unique_ptr<DeepseekModel> model(new DeepseekModel(config, settings, std::move(ops), std::move(workspace),
                                                         std::move(rope), tensor_group, exchange));

  WeightPacker planner = WeightPacker::planner(settings);
  RETURN_IF_ERROR(load_weights(config, settings, catalog, planner));
  ASSIGN_OR_RETURN(model->weight_memory_, Device::allocate(planner.bytes()));
  WeightPacker packer = WeightPacker::packer(settings, device, model->weight_memory_.view<std::byte>(planner.bytes()),
                                             std::move(progress));
  ASSIGN_OR_RETURN(model->weights_, load_weights(config, settings, catalog, packer));
  model->weight_bytes_ = packer.bytes();
  return model;
}

Status DeepseekModel::forward(const ModelBatch& batch, const KvCache& cache) {
  const int64_t num_rows = batch.num_rows(), own_rows = parallel_.own_count(num_rows);
  CHECK(num_rows <= settings_.max_rows, "a step of {} rows, at most {}", num_rows, settings_.max_rows);
  const auto epsilon = static_cast<float>(config_.rms_norm_eps);
  const View<float, 2> residual = workspace_.residual.rows(0, own_rows), normed = workspace_.normed.rows(0, own_rows),
                       delta = workspace_.delta.rows(0, own_rows);

  const View<float, 2> embedded = parallel_.partial(residual, num_rows);
  ops_.embed({.ids = batch.token_ids,
              .table = weights_.embedding,
              .dtype = weights_.embedding_dtype,
              .vocab_begin = weights_.vocab_begin,
              .vocab_count = weights_.vocab_count,
              .out = embedded});
  RETURN_IF_ERROR(
      parallel_.scatter_sum(embedded, residual, {.operation = "embedding reduce-scatter", .step = batch.step}));

  View<float, 2> pending;  // the last half-layer's output, not yet added to the residual
  int moe_layer = 0;
  for (int layer = 0; layer < config_.num_layers; layer++) {
    const LayerWeights& weights = weights_.layers[static_cast<size_t>(layer)];
    ops_.add_norm({.residual = residual,
                   .delta = pending,
                   .weight = weights.attention.input_norm,
                   .epsilon = epsilon,
                   .out = normed});
    RETURN_IF_ERROR(attention_.forward(weights.attention, batch, normed, cache, layer));
    ops_.add_norm({.residual = residual,
                   .delta = delta,
                   .weight = weights.post_attention_norm,
                   .epsilon = epsilon,
                   .out = normed});
    if (weights.moe) {
      RETURN_IF_ERROR(feed_forward_.moe(*weights.moe, batch, normed, layer, moe_layer++));
    } else {
      RETURN_IF_ERROR(feed_forward_.dense(*weights.dense, batch, normed, layer));
    }
    pending = delta;
  }
  ops_.add_norm(
      {.residual = residual, .delta = pending, .weight = weights_.final_norm, .epsilon = epsilon, .out = normed});
  ASSIGN_OR_RETURN(final_rows_, parallel_.gather(normed, num_rows, workspace_.gathered,
                                                 {.operation = "head all-gather", .step = batch.step}));
  step_ = batch.step;
  return {};
}

Status DeepseekModel::logits(View<const int32_t, 1> row_ids, View<float, 2> logits) {
  const int64_t num_rows = row_ids.extent(0);
  CHECK(num_rows <= settings_.max_logit_rows, "logits of {} rows, at most {}", num_rows, settings_.max_logit_rows);
  const View<float, 2> rows = workspace_.logit_rows.rows(0, num_rows);
  ops_.gather_rows(final_rows_, row_ids, rows);
  const bool alone = parallel_.size() == 1;
  const View<float, 2> part =
      alone ? logits : View<float, 2>(workspace_.logits_part.data(), num_rows, weights_.vocab_count);
  apply_linear(ops_, workspace_, rows, weights_.head, part);
  if (alone) return {};
  return parallel_.group().gather_columns(part, parallel_.partition(config_.vocab_size), logits, kLogitsRoot,
                                          {.operation = "logits gather", .step = step_});
}

}  // namespace cachalot
