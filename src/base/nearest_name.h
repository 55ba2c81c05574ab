#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace cachalot {

// Of the names that somebody may have meant, the one with the fewest letters changed; empty if none is like it.
std::string nearest_name(std::string_view name, const std::vector<std::string>& known);

}  // namespace cachalot
