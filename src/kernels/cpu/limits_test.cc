#include "kernels/cpu/limits.h"

#include <gtest/gtest.h>

#include "kernels/ops_test_util.h"

namespace cachalot {
namespace {

TEST(Limits, OfHigherLevelsAreNotBelowThoseOfPlainLoops) {
  Device device({.num_threads = 1});
  constexpr size_t kMemory = size_t{32} << 20;
  const auto int8_peak = [&](IsaLevel isa) { return Limits::create(isa, device, kMemory).value().int8_peak(); };
  const double plain = int8_peak(IsaLevel::kReference);
  EXPECT_GT(plain, 1e7);
  for (IsaLevel isa : levels_here()) {
    Limits limits = Limits::create(isa, device, kMemory).value();
    EXPECT_GE(limits.int8_peak(), plain / 2) << isa_name(isa);
    EXPECT_GT(limits.float_peak(), 1e7) << isa_name(isa);
    EXPECT_GT(limits.read_bandwidth(), 1e8) << isa_name(isa);
    EXPECT_LT(limits.read_bandwidth(), 1e13) << isa_name(isa);
  }
}

}  // namespace
}  // namespace cachalot
