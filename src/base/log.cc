#include "base/log.h"

#include <spdlog/sinks/stdout_color_sinks.h>

#include <string>

namespace cachalot::log {

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

void quieten() {
  if (spdlog::get_level() == spdlog::level::info) spdlog::set_level(spdlog::level::warn);
}

}  // namespace cachalot::log
