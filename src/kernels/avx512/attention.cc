#include "kernels/avx512/simd.h"
#include "kernels/avx512/tile_simd.h"
#include "kernels/cpu/attention_kernels_impl.h"

namespace cachalot::avx512 {

constinit const AttentionKernels kAttentionKernels = attention_kernels<Simd, TileSimd>();

}  // namespace cachalot::avx512
