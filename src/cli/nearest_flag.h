#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

namespace cachalot {

// What to say of arguments that the subcommand does not know, with the nearest flag that it does know.
std::string describe_unknown(const CLI::App& command, const std::vector<std::string>& arguments);

}  // namespace cachalot
