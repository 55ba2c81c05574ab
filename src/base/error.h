#pragma once

#include <fmt/core.h>

#include <expected>
#include <string>
#include <string_view>
#include <utility>

namespace cachalot {

enum class ErrorCode {
  kInvalidArgument,   // what a person or a peer asked for makes no sense
  kNotFound,          // a file, tensor, model or request that is not there
  kUnsupported,       // makes sense, but this program does not do it
  kCorrupt,           // a file or message that contradicts itself
  kIo,                // the operating system refused
  kOutOfMemory,       // does not fit
  kTooLarge,          // more than a limit that somebody has set
  kUnavailable,       // a peer or service is not there now
  kDeadlineExceeded,  // did not finish in time
  kCancelled,         // given up by the one who asked
  kInternal,          // a fault of ours
};

// What went wrong, for a person: `message` names the file, key, host or parameter, the value, and what would be right.
struct Error {
  ErrorCode code = ErrorCode::kInternal;
  std::string message;
  std::string parameter;  // the flag, key or request field at fault, if it is one
};

template <class T>
using Result = std::expected<T, Error>;
using Status = Result<void>;

template <class... Args>
std::unexpected<Error> make_error(ErrorCode code, fmt::format_string<Args...> format, Args&&... args) {
  return std::unexpected(Error{code, fmt::format(format, std::forward<Args>(args)...), {}});
}

// The same, for a named parameter.
template <class... Args>
std::unexpected<Error> make_parameter_error(std::string parameter, fmt::format_string<Args...> format, Args&&... args) {
  return std::unexpected(
      Error{ErrorCode::kInvalidArgument, fmt::format(format, std::forward<Args>(args)...), std::move(parameter)});
}

}  // namespace cachalot

#define CACHALOT_CONCAT_INNER(a, b) a##b
#define CACHALOT_CONCAT(a, b) CACHALOT_CONCAT_INNER(a, b)

// RETURN_IF_ERROR(expr): leaves the function with the error of a Status (or any Result), if it has one.
#define RETURN_IF_ERROR(...)                                                               \
  do {                                                                                     \
    if (auto&& status_ = (__VA_ARGS__); !status_) return std::unexpected(status_.error()); \
  } while (0)

// ASSIGN_OR_RETURN(auto x, expr): x = value of the Result, or leaves the function with its error.
#define ASSIGN_OR_RETURN(lhs, ...) ASSIGN_OR_RETURN_INNER(CACHALOT_CONCAT(result_, __LINE__), lhs, (__VA_ARGS__))
#define ASSIGN_OR_RETURN_INNER(result, lhs, expr)                 \
  auto result = expr;                                             \
  if (!result) return std::unexpected(std::move(result.error())); \
  lhs = std::move(*result)

namespace cachalot {

// Prints the broken invariant with file and line, and aborts the process (the rank).
[[noreturn]] void check_failed(const char* file, int line, std::string_view condition, std::string_view message);

// By main(): who else is told of it, as of an exception that nobody caught, before the process ends.
using FaultReport = void (*)(std::string_view message);
void set_fault_report(FaultReport report);

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
