#include "engine/placement.h"

namespace cachalot {

Result<IsaLevel> choose_isa(IsaOption option) {
  const IsaLevel best = detect_isa();
  const IsaLevel wanted = option == IsaOption::kAuto        ? best
                          : option == IsaOption::kReference ? IsaLevel::kReference
                          : option == IsaOption::kAvx2      ? IsaLevel::kAvx2
                                                            : IsaLevel::kAvx512;
  if (wanted > best)
    return make_parameter_error("--isa", "--isa {}: this CPU runs at most {}", isa_name(wanted), isa_name(best));
  return wanted;
}

}  // namespace cachalot
