#include "router/load_report.h"

#include <boost/json/parse.hpp>

namespace cachalot::router {

Result<LoadReport> parse_load_report(std::string_view text) {
  boost::json::error_code error;
  const boost::json::value json = boost::json::parse(boost::json::string_view(text.data(), text.size()), error);
  const auto* object = error ? nullptr : json.if_object();
  if (!object) return make_error(ErrorCode::kCorrupt, "a load report is no JSON object");
  const auto number = [&](const char* name) {
    const boost::json::value* value = object->if_contains(name);
    return value && value->is_number() ? value->to_number<double>() : 0.0;
  };
  return LoadReport{.num_running = static_cast<int>(number("running")),
                    .num_waiting = static_cast<int>(number("waiting")),
                    .num_pending_tokens = number("pending_tokens"),
                    .kv_usage = number("kv_usage")};
}

}  // namespace cachalot::router
