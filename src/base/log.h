#pragma once

#include <spdlog/spdlog.h>

#include <string_view>

// Logging is spdlog to stderr: log::info("loaded {} tensors", count). Whoever detects a fault logs it, once.
namespace cachalot::log {

using spdlog::debug;
using spdlog::error;
using spdlog::info;
using spdlog::warn;

// `level`: debug, info, warning, error or off. `who` stands in every line, e.g. "rank 3"; may be empty.
void init(std::string_view level, std::string_view who);
// From now on lines say so; the level stays.
void set_who(std::string_view who);
// Of what "info" shows, only warnings and errors from now on: something else is on the terminal. A level that somebody
// chose otherwise stays.
void quieten();

}  // namespace cachalot::log
