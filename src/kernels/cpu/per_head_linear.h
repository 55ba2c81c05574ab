#pragma once

#include "kernels/cores.h"
#include "kernels/ops.h"

namespace cachalot {

// out[r][h] = matrices[h] . x[r][h] with the float core of a level; threads share heads and strips. Uses no scratch.
void per_head_linear(FloatCore core, const OpsContext& context, View<const float, 3> x,
                     std::span<const PackedMatrix> matrices, View<float, 3> out);

}  // namespace cachalot
