#include "base/log.h"

#include <fmt/chrono.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <chrono>
#include <string>

#include "base/text.h"

namespace cachalot::log {
namespace {

// Made while there is one thread: the library makes it at the first line otherwise, which two threads may write.
[[maybe_unused]] const auto* const first_logger = spdlog::default_logger_raw();

Format chosen_format = Format::kText;  // set while there is one thread
std::string rank;                      // of kJson's lines, likewise

spdlog::level::level_enum to_spdlog(Level level) {
  constexpr spdlog::level::level_enum kLevels[] = {spdlog::level::debug, spdlog::level::info, spdlog::level::warn,
                                                   spdlog::level::err, spdlog::level::off};
  return kLevels[static_cast<size_t>(level)];
}

std::string json_string(std::string_view text) {
  std::string json = "\"";
  for (const char letter : to_valid_utf8(text)) {
    if (letter == '"' || letter == '\\')
      json += {'\\', letter};
    else if (static_cast<unsigned char>(letter) < 0x20)
      json += letter == '\n' ? "\\n" : fmt::format("\\u{:04x}", letter);
    else
      json += letter;
  }
  return json + "\"";
}

std::string json_line(Level level, std::string_view request, std::string_view message) {
  constexpr std::string_view kNames[] = {"debug", "info", "warning", "error"};
  const auto now = std::chrono::system_clock::now();
  const auto milliseconds = std::chrono::duration_cast<std::chrono::milliseconds>(now.time_since_epoch()).count();
  std::string line = fmt::format(R"({{"time":"{:%Y-%m-%dT%H:%M:%S}.{:03}Z","level":"{}")",
                                 fmt::gmtime(static_cast<std::time_t>(milliseconds / 1000)), milliseconds % 1000,
                                 kNames[static_cast<size_t>(level)]);
  if (!rank.empty()) line += ",\"rank\":" + json_string(rank);
  if (!request.empty()) line += ",\"request_id\":" + json_string(request);
  return line + ",\"message\":" + json_string(message) + "}";
}

void set_pattern() {
  const std::string prefix = rank.empty() ? std::string() : rank + ": ";
  spdlog::default_logger()->set_pattern(
      chosen_format == Format::kJson ? "%v" : "%Y-%m-%d %H:%M:%S.%e %^%L%$ " + prefix + "%v");
}

}  // namespace

Format current_format() {
  return chosen_format;
}

void write(Level level, fmt::string_view format, fmt::format_args args) {
  write_of({}, level, format, args);
}

void write_of(std::string_view request, Level level, fmt::string_view format, fmt::format_args args) {
  if (!shows(level)) return;
  std::string message = fmt::vformat(format, args);
  if (chosen_format == Format::kJson)
    message = json_line(level, request, message);
  else if (!request.empty())
    message.insert(0, quoted(request, 160) + ": ");
  spdlog::log(to_spdlog(level), spdlog::string_view_t(message));
}

void write_text(std::FILE* to, fmt::string_view format, fmt::format_args args) {
  const std::string text = fmt::vformat(format, args);
  std::fwrite(text.data(), 1, text.size(), to);
  std::fflush(to);
}

void init(std::string_view level, std::string_view who, Format format) {
  chosen_format = format;
  auto logger = std::make_shared<spdlog::logger>("cachalot", std::make_shared<spdlog::sinks::stderr_color_sink_mt>());
  logger->set_level(spdlog::level::from_str(std::string(level)));
  logger->flush_on(spdlog::level::info);
  spdlog::set_default_logger(std::move(logger));
  set_who(who);
}

void set_who(std::string_view who) {
  rank = who;
  set_pattern();
}

bool shows(Level level) {
  return spdlog::should_log(to_spdlog(level));
}

void quieten(Level level) {
  if (spdlog::get_level() == spdlog::level::info) spdlog::set_level(to_spdlog(level));
}

}  // namespace cachalot::log
