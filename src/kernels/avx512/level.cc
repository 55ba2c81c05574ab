#include "kernels/avx512/simd.h"
#include "kernels/cpu/attention_kernels_impl.h"
#include "kernels/cpu/limits_impl.h"
#include "kernels/cpu/linear_cores_impl.h"
#include "kernels/cpu/row_cores_impl.h"

// All of the level but its integer core: loops that are written once, over its vectors.
namespace cachalot::avx512 {

constinit const RowCores kRowCores = row_cores<Simd>();
constinit const LinearCores kLinearCores = linear_cores<Simd, TileSimd, kRowCores, kIntCore>();
constinit const AttentionKernels kAttentionKernels = attention_kernels<Simd, TileSimd>();
constinit const LimitCores kLimitCores = limit_cores<TileSimd>();

}  // namespace cachalot::avx512
