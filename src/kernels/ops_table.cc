#include <algorithm>

#include "kernels/operations.h"

namespace cachalot {

const LevelCores& level_cores(IsaLevel isa) {
  static constexpr LevelCores kReference = {
      .isa = IsaLevel::kReference, .linear = &reference::kLinearCores, .limits = &reference::kLimitCores};
  static constexpr const LevelCores* kLevels[] = {&kReference, &avx2::kCores, &avx512::kCores};
  return *kLevels[static_cast<size_t>(isa)];
}

const OpsTable& ops_table(IsaLevel isa) {
  static const auto table = [](auto add_row_operations, auto add_attention) {
    OpsTable table;
    add_linears(table);
    add_row_operations(table);
    add_attention(table);
    return table;
  };
  static const OpsTable reference = table(reference::add_row_operations, reference::add_attention),
                        shared = table(add_row_operations, add_attention);
  return isa == IsaLevel::kReference ? reference : shared;
}

// The families use the scratch one after another, so it is as large as the largest need.
size_t ops_scratch_bytes(IsaLevel isa, const OpsLimits& limits, int num_threads) {
  const size_t linears = linear_scratch_bytes(*level_cores(isa).linear, limits, num_threads);
  if (isa == IsaLevel::kReference) return std::max(reference::row_scratch_bytes(limits), linears);
  return std::max({row_scratch_bytes(limits, num_threads), linears, attention_scratch_bytes(limits, num_threads)});
}

}  // namespace cachalot
