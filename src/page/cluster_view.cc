#include "page/cluster_view.h"

#include <boost/json.hpp>

#include "base/text.h"

namespace cachalot::page {
namespace {

namespace json = boost::json;

constexpr size_t kMostBytes = 4 << 20, kMostRanks = 1024, kMostLayers = 256, kMostBounds = 64, kLongestText = 253;

std::string text(const json::object& object, std::string_view key) {
  const json::value* const value = object.if_contains(key);
  return value && value->is_string() ? escaped(value->get_string(), kLongestText) : std::string();
}

template <class Number>
Number number(const json::value* value) {
  json::error_code failed;
  const Number read = value && value->is_number() ? value->to_number<Number>(failed) : Number();
  return failed ? Number() : read;
}

template <class Number>
void read(const json::object& object, std::string_view key, Number& field) {
  field = number<Number>(object.if_contains(key));
}

template <class Number>
std::vector<Number> numbers(const json::object& object, std::string_view key, size_t most) {
  std::vector<Number> list;
  const json::value* const value = object.if_contains(key);
  if (const json::array* const items = value ? value->if_array() : nullptr)
    for (size_t idx = 0; idx < std::min(items->size(), most); idx++) list.push_back(number<Number>(&(*items)[idx]));
  return list;
}

const json::object* nested(const json::object& object, std::string_view key) {
  const json::value* const value = object.if_contains(key);
  return value ? value->if_object() : nullptr;
}

std::string failure(const json::object& object) {
  const json::object* const failure = nested(object, "failure");
  return failure ? text(*failure, "code") : std::string();
}

HistogramView histogram(const json::object& counts, std::string_view key) {
  const json::object* const object = nested(counts, key);
  if (!object) return {};
  HistogramView view{.bounds = numbers<double>(*object, "bounds", kMostBounds),
                     .counts = numbers<uint64_t>(*object, "counts", kMostBounds + 1)};
  return view.counts.size() == view.bounds.size() + 1 ? view : HistogramView();
}

RankView rank_of(const json::object& object) {
  RankView rank{.phase = text(object, "phase"), .failure = failure(object), .host = text(object, "host")};
  for (const auto& [key, field] :
       {std::pair("rank", &rank.rank), std::pair("pid", &rank.pid), std::pair("percent", &rank.percent)})
    read(object, key, *field);
  const json::object* const report = nested(object, "report");
  rank.has_report = report != nullptr;
  if (!report) return rank;
  for (const auto& [key, field] :
       {std::pair("resident_bytes", &rank.resident_bytes), std::pair("weight_bytes", &rank.weight_bytes),
        std::pair("num_experts", &rank.num_experts), std::pair("experts_held", &rank.experts_held),
        std::pair("moe_layers", &rank.moe_layers)})
    read(*report, key, *field);
  for (const auto& [key, field] :
       {std::pair("steps", &rank.steps), std::pair("steps_without_rows", &rank.steps_without_rows),
        std::pair("nanoseconds_computing", &rank.nanoseconds_computing),
        std::pair("nanoseconds_exchanging", &rank.nanoseconds_exchanging),
        std::pair("nanoseconds_waiting", &rank.nanoseconds_waiting)})
    read(*report, key, *field);
  rank.layer_rows = numbers<uint64_t>(*report, "expert_rows_by_layer", kMostLayers);
  return rank;
}

}  // namespace

Result<ServerView> parse_server_view(std::string_view state) {
  json::error_code failed;
  const json::value parsed = state.size() > kMostBytes ? json::value() : json::parse(state, failed);
  const json::object* const object = failed ? nullptr : parsed.if_object();
  if (!object || !object->contains("phase")) return make_error(ErrorCode::kCorrupt, "it is no server's state");
  ServerView server{.phase = text(*object, "phase"), .failure = failure(*object)};
  for (const auto& [key, field] :
       {std::pair("epoch", &server.epoch), std::pair("running", &server.num_running),
        std::pair("waiting", &server.num_waiting), std::pair("kv_usage_percent", &server.kv_usage_percent)})
    read(*object, key, *field);
  const json::value* const healing = object->if_contains("healing");
  server.is_healing = healing && healing->is_bool() && healing->get_bool();
  if (const json::object* const counts = nested(*object, "counts")) {
    server.has_counts = true;
    for (const auto& [key, field] :
         {std::pair("prompt_tokens", &server.prompt_tokens), std::pair("generation_tokens", &server.generation_tokens),
          std::pair("prefix_queried_tokens", &server.prefix_queried_tokens),
          std::pair("prefix_hit_tokens", &server.prefix_hit_tokens)})
      read(*counts, key, *field);
    server.first_token = histogram(*counts, "first_token_seconds");
    server.between_tokens = histogram(*counts, "between_tokens_seconds");
  }
  const json::value* const ranks = object->if_contains("ranks");
  if (const json::array* const list = ranks ? ranks->if_array() : nullptr)
    for (const json::value& rank : *list)
      if (const json::object* const of = rank.if_object(); of && server.ranks.size() < kMostRanks)
        server.ranks.push_back(rank_of(*of));
  return server;
}

}  // namespace cachalot::page
