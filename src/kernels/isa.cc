#include "kernels/isa.h"

namespace cachalot {

IsaLevel detect_isa() {
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  if (!avx2) return IsaLevel::kReference;
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512vnni");
  return avx512 ? IsaLevel::kAvx512 : IsaLevel::kAvx2;
}

std::string_view isa_name(IsaLevel isa) {
  switch (isa) {
    case IsaLevel::kReference:
      return "reference";
    case IsaLevel::kAvx2:
      return "avx2";
    case IsaLevel::kAvx512:
      return "avx512";
  }
  return "unknown";
}

}  // namespace cachalot
