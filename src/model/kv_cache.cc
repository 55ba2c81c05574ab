#include "model/kv_cache.h"

#include <fmt/format.h>

#include <algorithm>

namespace cachalot {

std::string_view cache_kind_name(CacheKind kind) {
  static constexpr std::array<std::string_view, kNumCacheKinds> kNames{"latents", "indexer keys"};
  return kNames[static_cast<size_t>(kind)];
}

std::vector<CacheTensor> cache_tensors(const ModelConfig& config) {
  std::vector<CacheTensor> tensors;
  for (int layer = 0; layer < config.num_layers; layer++) {
    tensors.push_back({CacheKind::kLatents, layer, config.kv_cache_dim()});
    if (config.has_indexer(layer)) tensors.push_back({CacheKind::kIndexerKeys, layer, config.indexer->head_dim});
  }
  return tensors;
}

CacheBytes cache_bytes_of_token(const ModelConfig& config, DType dtype) {
  CacheBytes bytes{};
  for (const CacheTensor& tensor : cache_tensors(config))
    bytes[static_cast<size_t>(tensor.kind)] += static_cast<size_t>(tensor.width) * dtype_size(dtype);
  return bytes;
}

std::string cache_bytes_text(const CacheBytes& bytes) {
  std::string kinds;
  for (size_t kind = 0; kind < kNumCacheKinds; kind++)
    if (bytes[kind] > 0)
      kinds +=
          fmt::format("{}{} {}", kinds.empty() ? "" : ", ", cache_kind_name(static_cast<CacheKind>(kind)), bytes[kind]);
  return std::ranges::count_if(bytes, [](size_t of_kind) { return of_kind > 0; }) > 1
             ? fmt::format("{} bytes a token ({})", sum_of(bytes), kinds)
             : fmt::format("{} bytes a token", sum_of(bytes));
}

CacheBytes cache_bytes_read(const ModelConfig& config, DType dtype, int64_t num_positions) {
  const auto read = [&](CacheKind kind) {
    return kind == CacheKind::kLatents && config.indexer ? std::min<int64_t>(num_positions, config.indexer->topk)
                                                         : num_positions;
  };
  CacheBytes bytes = cache_bytes_of_token(config, dtype);
  for (size_t kind = 0; kind < kNumCacheKinds; kind++)
    bytes[kind] *= static_cast<size_t>(read(static_cast<CacheKind>(kind)));
  return bytes;
}

size_t KvCache::bytes(const ModelConfig& config, DType dtype, int64_t num_slots) {
  return static_cast<size_t>(num_slots) * sum_of(cache_bytes_of_token(config, dtype));
}

KvCache::KvCache(const ModelConfig& config, DType dtype, std::byte* memory, int64_t num_slots)
    : num_slots_(num_slots), dtype_(dtype) {
  for (std::vector<ComputeView<2>>& layers : of_kind_) layers.resize(static_cast<size_t>(config.num_layers));
  for (const CacheTensor& tensor : cache_tensors(config)) {
    of_kind_[static_cast<size_t>(tensor.kind)][static_cast<size_t>(tensor.layer)] =
        ComputeView<2>(memory, dtype, num_slots, tensor.width);
    memory += static_cast<size_t>(num_slots * tensor.width) * dtype_size(dtype);
  }
}

}  // namespace cachalot
