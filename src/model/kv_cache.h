#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <string>
#include <string_view>
#include <vector>

#include "config/model_config.h"
#include "tensor/view.h"

// What is kept of every token that a sequence has computed. Who plans, counts or allocates it takes the sum of a
// family's tensors from here; a block of the pool is the same slots of all of them.
namespace cachalot {

enum class CacheKind : uint8_t {
  kLatents,      // latent attention: the normalized latent and the rotated key
  kIndexerKeys,  // sparse attention: what the indexer scores positions by, of layers that have one
};
inline constexpr size_t kNumCacheKinds = 2;
std::string_view cache_kind_name(CacheKind kind);

// One tensor of the cache: [num_slots, width] of the compute dtype.
struct CacheTensor {
  CacheKind kind = CacheKind::kLatents;
  int layer = 0;
  int64_t width = 0;
};
// A model's, in the order in which they lie in memory.
std::vector<CacheTensor> cache_tensors(const ModelConfig& config);

using CacheBytes = std::array<size_t, kNumCacheKinds>;  // of a token, by kind
CacheBytes cache_bytes_of_token(const ModelConfig& config, DType dtype);
inline size_t sum_of(const CacheBytes& bytes) {
  return std::accumulate(bytes.begin(), bytes.end(), size_t{0});
}
// "70272 bytes a token", "85888 bytes a token (latents 70272, indexer keys 15616)"
std::string cache_bytes_text(const CacheBytes& bytes);
// What a generated row that sees so many positions reads: an indexer's keys of all, the latents of those that it
// attends to.
CacheBytes cache_bytes_read(const ModelConfig& config, DType dtype, int64_t num_positions);

// Views of all tensors, in memory that somebody else owns: num_slots x the bytes of a token.
class KvCache {
 public:
  KvCache() = default;
  KvCache(const ModelConfig& config, DType dtype, std::byte* memory, int64_t num_slots);
  static size_t bytes(const ModelConfig& config, DType dtype, int64_t num_slots);

  // [num_slots, width]. A layer that has none of the kind gives an empty view.
  const ComputeView<2>& operator()(CacheKind kind, int layer) const {
    return of_kind_[static_cast<size_t>(kind)][static_cast<size_t>(layer)];
  }
  int64_t num_slots() const { return num_slots_; }
  DType dtype() const { return dtype_; }

 private:
  std::array<std::vector<ComputeView<2>>, kNumCacheKinds> of_kind_;  // [kind][layer]
  int64_t num_slots_ = 0;
  DType dtype_ = DType::kBF16;
};

}  // namespace cachalot
