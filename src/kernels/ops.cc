#include "kernels/ops.h"

#include <algorithm>

#include "kernels/cores.h"

namespace cachalot {

const LevelCores& level_cores(IsaLevel isa) {
  static constexpr const LevelCores* kLevels[] = {&reference::kCores, &avx2::kCores, &avx512::kCores};
  return *kLevels[static_cast<size_t>(isa)];
}

// The families use the scratch one after another, so it is as large as the largest need.
size_t ops_scratch_bytes(IsaLevel isa, const OpsLimits& limits, int num_threads) {
  return std::max({row_scratch_bytes(limits, num_threads),
                   linear_scratch_bytes(*level_cores(isa).linear, limits, num_threads),
                   attention_scratch_bytes(limits, num_threads), indexer_scratch_bytes(limits, num_threads)});
}

Result<Ops> Ops::create(IsaLevel isa, Device& device, const OpsLimits& limits) {
  ASSIGN_OR_RETURN(Buffer scratch, device.allocate(ops_scratch_bytes(isa, limits, device.threads().num_threads())));
  return Ops(isa, device, limits, std::move(scratch));
}

Ops::Ops(IsaLevel isa, Device& device, const OpsLimits& limits, Buffer scratch)
    : isa_(isa),
      cores_(&level_cores(isa)),
      threads_(&device.threads()),
      limits_(limits),
      scratch_(std::move(scratch)) {}

}  // namespace cachalot
