#include "base/error.h"

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>
#include <thread>

#include "base/log.h"

namespace cachalot {
namespace {

std::atomic<FaultReport> fault_report = nullptr;

void tell(const std::string& message) {
  log::print(stderr, "{}\n", message);
  if (const FaultReport report = fault_report) report(message);
}

[[noreturn]] void end_with(const std::string& message) {
  static std::atomic_flag has_begun;
  // Another thread is at it, or what is told of one fault has met a second.
  if (has_begun.test_and_set()) {
    std::this_thread::sleep_for(std::chrono::seconds(1));
  } else {
    tell(message);
  }
  std::abort();
}

[[noreturn]] void end_uncaught() {
  std::string what = "it is none of the standard's";
  try {
    if (const std::exception_ptr exception = std::current_exception()) std::rethrow_exception(exception);
    what = "there is none";
  } catch (const std::exception& exception) {
    what = exception.what();
  } catch (...) {  // NOLINT(bugprone-empty-catch): as it says above
  }
  end_with("an exception that nobody caught: " + what);
}

}  // namespace

void check_failed(const char* file, int line, std::string_view condition, std::string_view message) {
  // Without the folders of the machine that built this.
  std::string_view place = file;
  const size_t source = place.rfind("/src/");
  if (source != std::string_view::npos) place.remove_prefix(source + 1);
  end_with(fmt::format("{}:{}: check failed: {}{}{}", place, line, condition, message.empty() ? "" : ": ", message));
}

}  // namespace cachalot

// Boost's assertions, in the builds that have them (BOOST_ENABLE_ASSERT_DEBUG_HANDLER).
namespace boost {

void assertion_failed(const char* condition, const char* function, const char* file, long line);
void assertion_failed(const char* condition, const char* /*function*/, const char* file, long line) {
  // Beast 1.81 wants five bytes where there may be four, the end of an empty chunked body and one more, and reads no
  // byte that is not there.
  if (std::string_view(condition) == "n >= 5" && std::string_view(file).ends_with("http/impl/basic_parser.ipp")) return;
  cachalot::check_failed(file, static_cast<int>(line), condition, "");
}

void assertion_failed_msg(const char* condition, const char* message, const char* function, const char* file,
                          long line);
void assertion_failed_msg(const char* condition, const char* message, const char* /*function*/, const char* file,
                          long line) {
  cachalot::check_failed(file, static_cast<int>(line), condition, message);
}

}  // namespace boost

namespace cachalot {

void set_fault_report(FaultReport report) {
  fault_report = report;
  std::set_terminate(end_uncaught);
}

}  // namespace cachalot
