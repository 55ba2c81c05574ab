#pragma once

#include <string>
#include <string_view>

#include "base/error.h"

namespace cachalot {

// A whole file as text. Errors name the path and what the operating system said.
Result<std::string> read_file(const std::string& path);

// Writes beside the path and renames, so that a reader sees the old file or the whole new one.
Status write_file(const std::string& path, std::string_view text);

}  // namespace cachalot
