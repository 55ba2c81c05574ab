#include "kernels/cpu/limits.h"

#include "kernels/avx512/int_block.h"

namespace cachalot::avx512 {
namespace {

constexpr int kChains = 12;  // sums that run side by side: more than the latency of a product times those begun a cycle

// What the compiler may not leave out. Not in the lambdas below: clang refuses assembly on what they capture.
template <class Vector>
CACHALOT_INLINE inline void keep(Vector vector) {
  asm volatile("" ::"v"(vector));
}
CACHALOT_INLINE inline void multiply_add(__m512& sum, __m512 x) {
  asm volatile("vfmadd231ps %1,%1,%0" : "+v"(sum) : "v"(x));
}

void read(const std::byte* first, const std::byte* second, size_t bytes) {
  constexpr size_t kAhead = 2048;
  __m512i sums = _mm512_setzero_si512();
  for (size_t idx = 0; idx < bytes; idx += 128) {
    for (const std::byte* stream : {first, second}) {
      prefetch(stream + idx + kAhead);
      prefetch(stream + idx + kAhead + 64);
      sums = _mm512_xor_si512(sums, _mm512_xor_si512(load(stream + idx), load(stream + idx + 64)));
    }
  }
  keep(sums);
}

void multiply_int8(int64_t rounds) {
  __m512i sums[kChains], x = _mm512_set1_epi8(1);
  unroll<kChains>([&](auto i) CACHALOT_INLINE { sums[i] = _mm512_set1_epi32(i); });
  for (int64_t round = 0; round < rounds; round++) unroll<kChains>([&](auto i) CACHALOT_INLINE { dot(sums[i], x, x); });
  unroll<kChains>([&](auto i) CACHALOT_INLINE { keep(sums[i]); });
}

void multiply_floats(int64_t rounds) {
  __m512 sums[kChains], x = _mm512_set1_ps(1);
  unroll<kChains>([&](auto i) CACHALOT_INLINE { sums[i] = _mm512_set1_ps(i); });
  for (int64_t round = 0; round < rounds; round++) {
    unroll<kChains>([&](auto i) CACHALOT_INLINE { multiply_add(sums[i], x); });
  }
  unroll<kChains>([&](auto i) CACHALOT_INLINE { keep(sums[i]); });
}

}  // namespace

constinit const LimitCores kLimitCores = {
    .read = read,
    .multiply_int8 = multiply_int8,
    .multiply_floats = multiply_floats,
    .int8_operations = kChains * 128,
    .float_operations = kChains * 32,
};

}  // namespace cachalot::avx512
