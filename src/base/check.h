#pragma once

#include <fmt/core.h>

#include <string_view>

namespace cachalot {

// Prints the broken invariant with file and line, and aborts the process (the rank).
[[noreturn]] void check_failed(const char* file, int line, std::string_view condition, std::string_view message);

}  // namespace cachalot

// CHECK(condition) or CHECK(condition, "format", args...): an invariant of ours. Never for input, files or peers.
#define CHECK(condition, ...)                                                                        \
  do {                                                                                               \
    if (!(condition)) [[unlikely]]                                                                   \
      ::cachalot::check_failed(__FILE__, __LINE__, #condition, CACHALOT_CHECK_MESSAGE(__VA_ARGS__)); \
  } while (0)
#define CACHALOT_CHECK_MESSAGE(...) (::cachalot::internal::check_message(__VA_ARGS__))

namespace cachalot::internal {
inline std::string check_message() {
  return {};
}
template <class... Args>
std::string check_message(fmt::format_string<Args...> format, Args&&... args) {
  return fmt::format(format, std::forward<Args>(args)...);
}
}  // namespace cachalot::internal
