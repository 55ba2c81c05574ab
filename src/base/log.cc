#include "base/log.h"

#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <string>

namespace cachalot::log {
namespace {

// Made while there is one thread: the library makes it at the first line otherwise, which two threads may write.
[[maybe_unused]] const auto* const first_logger = spdlog::default_logger_raw();

spdlog::level::level_enum to_spdlog(Level level) {
  constexpr spdlog::level::level_enum kLevels[] = {spdlog::level::debug, spdlog::level::info, spdlog::level::warn,
                                                   spdlog::level::err, spdlog::level::off};
  return kLevels[static_cast<size_t>(level)];
}

}  // namespace

void write(Level level, fmt::string_view format, fmt::format_args args) {
  if (shows(level)) spdlog::log(to_spdlog(level), spdlog::string_view_t(fmt::vformat(format, args)));
}

void write_text(std::FILE* to, fmt::string_view format, fmt::format_args args) {
  const std::string text = fmt::vformat(format, args);
  std::fwrite(text.data(), 1, text.size(), to);
  std::fflush(to);
}

void init(std::string_view level, std::string_view who) {
  auto logger = std::make_shared<spdlog::logger>("cachalot", std::make_shared<spdlog::sinks::stderr_color_sink_mt>());
  logger->set_level(spdlog::level::from_str(std::string(level)));
  logger->flush_on(spdlog::level::info);
  spdlog::set_default_logger(std::move(logger));
  set_who(who);
}

void set_who(std::string_view who) {
  const std::string prefix = who.empty() ? std::string() : std::string(who) + ": ";
  spdlog::default_logger()->set_pattern("%Y-%m-%d %H:%M:%S.%e %^%L%$ " + prefix + "%v");
}

bool shows(Level level) {
  return spdlog::should_log(to_spdlog(level));
}

void quieten(Level level) {
  if (spdlog::get_level() == spdlog::level::info) spdlog::set_level(to_spdlog(level));
}

}  // namespace cachalot::log
