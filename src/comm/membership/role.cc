#include "comm/membership/role.h"

#include <fmt/format.h>

namespace cachalot::control {

std::string Timing::silence() const {
  return fmt::format("nothing has come from it for {} s", static_cast<double>(silence_limit().count()) / 1000);
}

}  // namespace cachalot::control
