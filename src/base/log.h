#pragma once

#include <fmt/core.h>

#include <cstdio>
#include <string_view>

// Lines for people, to stderr: log::info("loaded {} tensors", count). Whoever detects a fault logs it, once. The
// library behind it (spdlog) is seen by log.cc only: its headers cost seconds of every file that includes them.
namespace cachalot::log {

enum class Level { kDebug, kInfo, kWarning, kError, kOff };

void write(Level level, fmt::string_view format, fmt::format_args args);

template <class... Args>
void debug(fmt::format_string<Args...> format, Args&&... args) {
  write(Level::kDebug, format, fmt::make_format_args(args...));
}
// Of one request; `request` may be empty.
void write_of(std::string_view request, Level level, fmt::string_view format, fmt::format_args args);
template <class... Args>
void info_of(std::string_view request, fmt::format_string<Args...> format, Args&&... args) {
  write_of(request, Level::kInfo, format, fmt::make_format_args(args...));
}

template <class... Args>
void info(fmt::format_string<Args...> format, Args&&... args) {
  write(Level::kInfo, format, fmt::make_format_args(args...));
}
template <class... Args>
void warn(fmt::format_string<Args...> format, Args&&... args) {
  write(Level::kWarning, format, fmt::make_format_args(args...));
}
template <class... Args>
void error(fmt::format_string<Args...> format, Args&&... args) {
  write(Level::kError, format, fmt::make_format_args(args...));
}

// Text for a person who looks at it now, not for a log. Where nobody reads it any more (a pipe that was closed), it is
// lost, and nothing else happens.
void write_text(std::FILE* to, fmt::string_view format, fmt::format_args args);
template <class... Args>
void print(std::FILE* to, fmt::format_string<Args...> format, Args&&... args) {
  write_text(to, format, fmt::make_format_args(args...));
}

// kJson: each line an object with time, level, message, and where there is one rank (`who`) and request_id.
enum class Format { kText, kJson };
Format current_format();

// `level`: debug, info, warning, error or off. `who` stands in every line, e.g. "rank 3"; may be empty.
void init(std::string_view level, std::string_view who, Format format = Format::kText);
// From now on lines say so; the level stays.
void set_who(std::string_view who);
// Whether lines of this level are written: for what is costly to say.
bool shows(Level level);
// Of what "info" shows, only lines of `level` and above from now on: something else is on the terminal. A level that
// somebody chose otherwise stays.
void quieten(Level level = Level::kWarning);

}  // namespace cachalot::log
