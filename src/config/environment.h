#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace cachalot {

// The variables of this process's environment whose name begins so, "NAME=value", in the order of names.
std::vector<std::string> environment_variables(std::string_view prefix);

}  // namespace cachalot
