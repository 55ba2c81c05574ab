#include "base/math.h"
#include "kernels/avx2/int_core.h"
#include "kernels/avx2/simd.h"
#include "kernels/cores.h"
#include "kernels/cpu/result_tiles_impl.h"
#include "kernels/row_cores.h"

namespace cachalot::avx2 {
namespace {

size_t prepared_bytes(int64_t in_features, int64_t num_rows) {
  constexpr int64_t kSmallestBlock = 32, kLargestBlock = 64;
  const int64_t blocks = ceil_div(in_features, kLargestBlock) * (kLargestBlock / kSmallestBlock);
  return static_cast<size_t>(num_rows * blocks * record_dwords(kSmallestBlock)) * sizeof(int32_t);
}

void quantize(const float* x, int64_t count, int group, int8_t* values, float* scales) {
  kRowCores.quantize(x, count, group, values, scales);
}

}  // namespace

constinit const LinearCores kLinearCores = {
    .float_core = float_core,
    .int_core = {.prepared_bytes = prepared_bytes, .prepare = prepare, .multiply = multiply},
    .quantize = quantize,
    .silu_product = silu_product<Simd>,
    .store_bf16 = store_bf16<Simd>,
};

}  // namespace cachalot::avx2
