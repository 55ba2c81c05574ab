#pragma once

#include <string>
#include <vector>

#include "base/error.h"

namespace cachalot {

// The words by which this process was started, the program's name first: for the ranks that it starts in its likeness.
Result<std::vector<std::string>> own_command_line();

}  // namespace cachalot
