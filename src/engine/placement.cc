#include "engine/placement.h"

namespace cachalot {

IsaLevel highest_isa(IsaOption option) {
  if (option == IsaOption::kReference) return IsaLevel::kReference;
  return option == IsaOption::kAvx2 ? IsaLevel::kAvx2 : IsaLevel::kAvx512;
}

Result<IsaLevel> choose_isa(IsaOption option) {
  const IsaLevel best = detect_isa(), wanted = option == IsaOption::kAuto ? best : highest_isa(option);
  if (wanted > best)
    return make_parameter_error("--isa", "--isa {}: this CPU runs at most {}", isa_name(wanted), isa_name(best));
  return wanted;
}

}  // namespace cachalot
