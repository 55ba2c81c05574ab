#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace cachalot {

// The flag of the command that is most like a name, both without dashes; empty if none is.
std::string nearest_flag(const CLI::App& command, std::string_view name);

// What to say of arguments that the subcommand does not know, with the nearest flag that it does know.
std::string describe_unknown(const CLI::App& command, const std::vector<std::string>& arguments);

}  // namespace cachalot
