#include "kernels/row_cores.h"

#include "kernels/avx512/simd.h"
#include "kernels/cpu/row_cores_impl.h"

namespace cachalot::avx512 {

constinit const RowCores kRowCores = row_cores<Simd>();

}  // namespace cachalot::avx512
