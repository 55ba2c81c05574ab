#include "kernels/cpu/limits.h"

#include <emmintrin.h>

namespace cachalot::reference {
namespace {

constexpr int kChains = 8;  // sums that run side by side

void read(const std::byte* first, const std::byte* second, size_t bytes) {
  __m128i sums = _mm_setzero_si128();
  for (size_t idx = 0; idx < bytes; idx += 16) {
    for (const std::byte* stream : {first, second})
      sums = _mm_xor_si128(sums, _mm_loadu_si128(reinterpret_cast<const __m128i*>(stream + idx)));
  }
  asm volatile("" ::"x"(sums));
}

// The level's products are plain loops over one number at a time.
template <class T>
void multiply(int64_t rounds) {
  T sums[kChains] = {}, x = 1;
  for (int64_t round = 0; round < rounds; round++) {
    for (T& sum : sums) {
      asm volatile("" : "+m"(x));
      sum += x * x;
    }
  }
  for (const T& sum : sums) asm volatile("" ::"m"(sum));
}

}  // namespace

constinit const LimitCores kLimitCores = {
    .read = read,
    .multiply_int8 = multiply<int32_t>,
    .multiply_floats = multiply<float>,
    .int8_operations = 2 * kChains,
    .float_operations = 2 * kChains,
};

}  // namespace cachalot::reference
