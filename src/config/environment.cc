#include "config/environment.h"

#include <unistd.h>

#include <algorithm>

namespace cachalot {

std::vector<std::string> environment_variables(std::string_view prefix) {
  std::vector<std::string> variables;
  for (char** variable = environ; *variable != nullptr; variable++) {
    if (std::string_view(*variable).starts_with(prefix)) variables.emplace_back(*variable);
  }
  std::ranges::sort(variables);
  return variables;
}

}  // namespace cachalot
