#include "kernels/row_cores.h"

#include "kernels/avx2/simd.h"
#include "kernels/cpu/row_cores_impl.h"

namespace cachalot::avx2 {

constinit const RowCores kRowCores = row_cores<Simd>();

}  // namespace cachalot::avx2
