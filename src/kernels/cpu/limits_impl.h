#pragma once

#include "kernels/cpu/limits.h"
#include "kernels/cpu/unroll.h"

// LimitCores written once over a level's vectors, its TileSimd (simd.h). Included by one file of each level, and of
// internal linkage, as cpu/row_cores_impl.h. What the compiler may not leave out does not stand in the lambdas: clang
// refuses assembly on what they capture.
namespace cachalot {
namespace {

template <class S>
void read_streams(const std::byte* first, const std::byte* second, size_t bytes) {
  using Ints = typename S::Ints;
  constexpr size_t kAhead = 2048, kAtOnce = 2 * sizeof(Ints);
  Ints sums = S::zero_bits();
  for (size_t idx = 0; idx < bytes; idx += kAtOnce) {
    for (const std::byte* stream : {first, second}) {
      for (size_t line = 0; line < kAtOnce; line += 64) S::prefetch(stream + idx + kAhead + line);
      const std::byte* vectors = stream + idx;
      sums = S::xor_bits(sums, S::xor_bits(S::load_ints(vectors), S::load_ints(vectors + sizeof(Ints))));
    }
  }
  S::keep(sums);
}

template <class S>
void multiply_bytes(int64_t rounds) {
  typename S::Ints sums[S::kChains], x = S::set_bytes(1);
  unroll<S::kChains>([&](auto i) CACHALOT_INLINE { sums[i] = S::set_dwords(i); });
  for (int64_t round = 0; round < rounds; round++)
    unroll<S::kChains>([&](auto i) CACHALOT_INLINE { S::multiply_bytes(sums[i], x); });
  unroll<S::kChains>([&](auto i) CACHALOT_INLINE { S::keep(sums[i]); });
}

template <class S>
void multiply_floats(int64_t rounds) {
  typename S::Floats sums[S::kChains], x = S::set(1);
  unroll<S::kChains>([&](auto i) CACHALOT_INLINE { sums[i] = S::set(i); });
  for (int64_t round = 0; round < rounds; round++)
    unroll<S::kChains>([&](auto i) CACHALOT_INLINE { S::multiply_floats(sums[i], x); });
  unroll<S::kChains>([&](auto i) CACHALOT_INLINE { S::keep(sums[i]); });
}

template <class S>
constexpr LimitCores limit_cores() {
  return {.read = read_streams<S>,
          .multiply_int8 = multiply_bytes<S>,
          .multiply_floats = multiply_floats<S>,
          .int8_operations = S::kChains * S::kByteOperations,
          .float_operations = S::kChains * S::kWidth * 2};
}

}  // namespace
}  // namespace cachalot
