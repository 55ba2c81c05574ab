#include "kernels/cpu/limits.h"

#include <immintrin.h>

#include "kernels/cpu/unroll.h"

namespace cachalot::avx2 {
namespace {

constexpr int kChains = 10;  // sums that run side by side

// What the compiler may not leave out. Not in the lambdas below: clang refuses assembly on what they capture.
template <class Vector>
CACHALOT_INLINE inline void keep(Vector vector) {
  asm volatile("" ::"x"(vector));
}
CACHALOT_INLINE inline void multiply_add(__m256& sum, __m256 x) {
  asm volatile("vfmadd231ps %1,%1,%0" : "+x"(sum) : "x"(x));
}

void read(const std::byte* first, const std::byte* second, size_t bytes) {
  constexpr size_t kAhead = 2048;
  __m256i sums = _mm256_setzero_si256();
  for (size_t idx = 0; idx < bytes; idx += 64) {
    for (const std::byte* stream : {first, second}) {
      _mm_prefetch(reinterpret_cast<const char*>(stream + idx + kAhead), _MM_HINT_T0);
      const auto* vectors = reinterpret_cast<const __m256i*>(stream + idx);
      sums = _mm256_xor_si256(sums, _mm256_xor_si256(_mm256_loadu_si256(vectors), _mm256_loadu_si256(vectors + 1)));
    }
  }
  keep(sums);
}

// Products of bytes to sums of 16 bits, two of them at a time; what widens them to 32 bits is not counted.
void multiply_int8(int64_t rounds) {
  __m256i sums[kChains], x = _mm256_set1_epi8(1);
  unroll<kChains>([&](auto i) CACHALOT_INLINE { sums[i] = _mm256_set1_epi16(i); });
  for (int64_t round = 0; round < rounds; round++) {
    unroll<kChains>([&](auto i) CACHALOT_INLINE {
      __m256i product;
      asm volatile("vpmaddubsw %1,%1,%0" : "=x"(product) : "x"(x));
      sums[i] = _mm256_add_epi16(sums[i], product);
    });
  }
  unroll<kChains>([&](auto i) CACHALOT_INLINE { keep(sums[i]); });
}

void multiply_floats(int64_t rounds) {
  __m256 sums[kChains], x = _mm256_set1_ps(1);
  unroll<kChains>([&](auto i) CACHALOT_INLINE { sums[i] = _mm256_set1_ps(i); });
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
    .int8_operations = kChains * 64,
    .float_operations = kChains * 16,
};

}  // namespace cachalot::avx2
