#include "kernels/avx2/simd.h"
#include "kernels/avx2/tile_simd.h"
#include "kernels/cpu/attention_kernels_impl.h"

namespace cachalot::avx2 {

constinit const AttentionKernels kAttentionKernels = attention_kernels<Simd, TileSimd>();

}  // namespace cachalot::avx2
