#include "comm/membership/role.h"

#include <fmt/format.h>

namespace cachalot::control {

std::string Timing::silence_text(std::chrono::steady_clock::duration silence) {
  return fmt::format("nothing has come from it for {:.1f} s", std::chrono::duration<double>(silence).count());
}

}  // namespace cachalot::control
