#include "model/workspace.h"

#include <algorithm>

#include "base/math.h"
#include "model/feed_forward.h"

namespace cachalot {
void Workspace::carve(Carver& carver, const ModelConfig& config, const ModelSettings& settings) {
  const int64_t rows = settings.max_rows, hidden = config.hidden_size, heads = config.num_heads / settings.tp_size;
  const int64_t kv_width = heads * (config.qk_nope_head_dim + config.v_head_dim),
                compute_bytes = static_cast<int64_t>(dtype_size(settings.compute_dtype));
  const bool tensor_parallel = settings.tp_size > 1;
  const auto f32 = [&](auto... extents) { return carver.take<float>(extents...); };

  residual = f32(rows, hidden);
  delta = f32(rows, hidden);
  normed = f32(rows, hidden);
  const int64_t index_width = config.indexer ? config.indexer->head_dim + config.indexer->num_heads : 0;
  low_rank = f32(rows, config.q_lora_rank + config.kv_cache_dim() + index_width);
  if (tensor_parallel) {
    gathered = f32(rows, hidden);
    partial = f32(rows, hidden);
    const int64_t widest = std::max(hidden, low_rank.extent(1));
    wire_own = carver.take<std::byte>(rows, widest * compute_bytes);
    wire_all = carver.take<std::byte>(rows, widest * compute_bytes);
    low_rank_gathered = f32(rows, low_rank.extent(1));
  }
  q_a_normed = f32(rows, config.q_lora_rank);
  q = f32(rows, heads, config.qk_head_dim());
  attention = f32(rows, heads, config.v_head_dim);
  softmax_max = f32(rows, heads);
  softmax_sum = f32(rows, heads);
  latents = f32(kContextChunk, config.kv_lora_rank);
  keys_values = f32(kContextChunk, kv_width);
  q_latent = f32(kAbsorbedChunk, heads, config.kv_lora_rank);
  latent_sum = f32(kAbsorbedChunk, heads, config.kv_lora_rank);

  if (config.indexer) {
    index_queries = f32(kIndexerChunk, config.indexer->num_heads, config.indexer->head_dim);
    // Where index_topk is beyond all positions nothing is chosen.
    if (config.indexer->topk < settings.max_positions)
      chosen_positions = carver.take<int32_t>(rows, config.indexer->topk);
  }

  const int64_t shared_width = int64_t{config.num_shared_experts} * config.moe_intermediate_size;
  const int64_t dense_width = ceil_div(config.intermediate_size, settings.tp_size);
  const int64_t width = std::max(shared_width, dense_width);
  intermediate = f32(rows, width);
  const auto quantized_store = [&](int64_t size, int64_t max_rows) {
    return QuantizedStore{.values = carver.take<int8_t>(size), .scales = f32(size / kSmallestGroup + max_rows)};
  };
  const int64_t features = std::max({hidden, int64_t{config.q_lora_rank}, heads * config.v_head_dim});
  quantized_input =
      quantized_store(std::max(rows * features, kContextChunk * config.kv_lora_rank), std::max(rows, kContextChunk));
  quantized_product = quantized_store(rows * width, rows);

  const int64_t experts = config.num_experts, top_k = config.num_experts_per_token;
  router_logits = f32(rows, experts);
  expert_ids = carver.take<int32_t>(rows, top_k);
  expert_weights = f32(rows, top_k);
  expert_rows = carver.take<std::byte>(rows * ExpertRowFormat::max_row_bytes(hidden, settings.compute_dtype));
  if (experts > 0 && !settings.float32()) arrived = f32(exchange_layout(config, settings).max_arrived_rows(), hidden);
  logit_rows = f32(settings.max_logit_rows, hidden);
  if (tensor_parallel) logits_part = f32(settings.max_logit_rows, ceil_div(config.vocab_size, settings.tp_size));
}

size_t Workspace::bytes(const ModelConfig& config, const ModelSettings& settings) {
  Carver carver(nullptr);
  Workspace().carve(carver, config, settings);
  return carver.used();
}

Result<Workspace> Workspace::create(const ModelConfig& config, const ModelSettings& settings) {
  Workspace workspace;
  ASSIGN_OR_RETURN(workspace.buffer_, Device::allocate(bytes(config, settings)));
  Carver carver(workspace.buffer_.data());
  workspace.carve(carver, config, settings);
  return workspace;
}

QuantizedRows Workspace::QuantizedStore::rows(int64_t num_rows, int64_t features, int group) const {
  const int64_t num_groups = ceil_div(features, group);
  CHECK(num_rows * features <= values.size() && num_rows * num_groups <= scales.size(),
        "{} x {} int8 rows in a store of {}", num_rows, features, values.size());
  return {.values = View<int8_t, 2>(values.data(), num_rows, features),
          .scales = View<float, 2>(scales.data(), num_rows, num_groups),
          .group = group};
}

int64_t max_reduced_bytes(const ModelConfig& config, const ModelSettings& settings) {
  if (settings.tp_size == 1) return 0;
  const int64_t own_rows = ceil_div(settings.max_rows, settings.tp_size);
  return own_rows * config.hidden_size * static_cast<int64_t>(dtype_size(settings.compute_dtype));
}

Result<View<float, 2>> TensorParallel::gather(View<float, 2> own, int64_t num_rows, View<float, 2> store,
                                              const CollectiveSite& site) const {
  if (size() == 1) return own;
  const View<float, 2> all = store.rows(0, num_rows);
  const int64_t features = own.extent(1), row_bytes = features * static_cast<int64_t>(dtype_size(compute_dtype_));
  const View<std::byte, 2> sent(workspace_.wire_own.data(), own.extent(0), row_bytes);
  const View<std::byte, 2> arrived(workspace_.wire_all.data(), all.extent(0), row_bytes);
  ops_.to_compute(own, ComputeView<2>(sent.data(), compute_dtype_, own.extent(0), features));
  RETURN_IF_ERROR(group_->all_gather(sent, partition(all.extent(0)), arrived, site));
  ops_.from_compute(ComputeView<2>(arrived.data(), compute_dtype_, all.extent(0), features), all);
  return all;
}

Status TensorParallel::scatter_sum(View<float, 2> partial, View<float, 2> own, const CollectiveSite& site) const {
  if (size() == 1) {
    CHECK(partial.data() == own.data());
    return {};
  }
  const ComputeView<2> sent(workspace_.wire_all.data(), compute_dtype_, partial.extent(0), partial.extent(1));
  ops_.to_compute(partial, sent);
  return group_->reduce_scatter(sent, partition(partial.extent(0)), own, site);
}

}  // namespace cachalot
