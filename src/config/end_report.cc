#include "config/end_report.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <boost/json.hpp>
#include <cstdlib>
#include <string>

#include "base/process.h"
#include "base/text.h"

namespace cachalot {
namespace {

namespace json = boost::json;

constexpr size_t kMostMessage = 2000;

// In the order of ErrorCode.
constexpr std::array<std::string_view, 11> kCodes{
    "invalid_argument", "not_found",   "unsupported",       "corrupt",   "io",      "out_of_memory",
    "too_large",        "unavailable", "deadline_exceeded", "cancelled", "internal"};
static_assert(kCodes.size() == static_cast<size_t>(ErrorCode::kInternal) + 1);

int report_fd = -1;  // set before there are threads

std::optional<EndReport> parse_line(std::string_view line) {
  json::error_code failed;
  const json::value parsed = json::parse(line, failed);
  const json::object* const object = failed ? nullptr : parsed.if_object();
  if (!object) return std::nullopt;
  const auto find = [&](const char* name) { return object->if_contains(name); };
  const json::value* const status = find("status");
  if (!find("version") || !status || !status->is_int64()) return std::nullopt;
  EndReport report{.status = static_cast<int>(std::clamp<int64_t>(status->get_int64(), 0, 255))};
  if (const json::value* const memory = find("out_of_memory"); memory && memory->is_bool())
    report.out_of_memory = memory->get_bool();
  const json::value *const code = find("code"), *const message = find("message");
  if (code && message && code->is_string() && message->is_string())
    report.error = Error{error_code_named(std::string_view(code->get_string())).value_or(ErrorCode::kInternal),
                         escaped(std::string_view(message->get_string()), kMostMessage),
                         {}};
  return report;
}

}  // namespace

std::string_view name_of(ErrorCode code) {
  return kCodes[std::min(static_cast<size_t>(code), kCodes.size() - 1)];
}

std::optional<ErrorCode> error_code_named(std::string_view name) {
  const auto found = std::ranges::find(kCodes, name);
  if (found == kCodes.end()) return std::nullopt;
  return static_cast<ErrorCode>(found - kCodes.begin());
}

std::string EndReport::text() const {
  std::string text = describe_end(status);
  if (out_of_memory) text += " when the system ran out of memory";
  return error ? text + ": " + error->message : text;
}

std::string to_json(const EndReport& report) {
  json::object object{{"version", 1}, {"status", report.status}, {"out_of_memory", report.out_of_memory}};
  if (report.error) {
    object["code"] = name_of(report.error->code);
    object["message"] = to_valid_utf8(report.error->message.substr(0, kMostMessage));
  }
  return json::serialize(object) + "\n";
}

std::optional<EndReport> parse_end_report(std::string_view text) {
  std::optional<EndReport> last;
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(line.size() + 1, text.size()));
    if (auto report = parse_line(line)) last = std::move(report);
  }
  return last;
}

EndReport read_end_report(int fd, int status, uint64_t memory_kills_before) {
  std::array<char, 8192> text{};
  const ssize_t size = pread(fd, text.data(), text.size(), 0);
  EndReport report =
      parse_end_report({text.data(), static_cast<size_t>(std::max<ssize_t>(size, 0))}).value_or(EndReport{});
  report.status = status;
  report.out_of_memory = lacked_memory(status, memory_kills_before);
  return report;
}

void take_end_report() {
  const char* const text = std::getenv(kEndReportVariable);
  if (!text) return;
  const int fd = parse_number<int>(text).value_or(-1);
  unsetenv(kEndReportVariable);
  // Nothing but what is open already, and no standard stream.
  if (fd > STDERR_FILENO && fcntl(fd, F_SETFD, FD_CLOEXEC) == 0) report_fd = fd;
}

void report_end(const Error& error) {
  if (report_fd < 0) return;
  const std::string text = to_json(EndReport{.status = 1, .error = error});
  if (write(report_fd, text.data(), text.size()) < 0) return;  // nobody waits for it any more
}

}  // namespace cachalot
