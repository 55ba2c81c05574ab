#include "engine/placement.h"

namespace cachalot {

IsaLevel highest_isa(IsaOption option) {
  switch (option) {
    case IsaOption::kReference:
      return IsaLevel::kReference;
    case IsaOption::kAvx2:
      return IsaLevel::kAvx2;
    case IsaOption::kAuto:
    case IsaOption::kAvx512:
      return IsaLevel::kAvx512;
  }
  check_failed(__FILE__, __LINE__, "option", "unknown level");
}

Result<IsaLevel> choose_isa(IsaOption option) {
  const IsaLevel best = detect_isa(), wanted = option == IsaOption::kAuto ? best : highest_isa(option);
  if (wanted > best)
    return make_parameter_error("--isa", "--isa {}: this CPU runs at most {}", isa_name(wanted), isa_name(best));
  return wanted;
}

}  // namespace cachalot
