#include "serve/server_state.h"

#include <algorithm>
#include <array>
#include <boost/json.hpp>
#include <utility>

#include "base/text.h"

namespace cachalot {
namespace {

namespace json = boost::json;

constexpr int kVersion1 = 1;
constexpr size_t kMostBytes = 4 << 20, kLongestHost = 253;

constexpr std::array<std::string_view, 6> kPhases{"starting", "forming", "loading", "ready", "draining", "failed"};
// Name and place of each number of a report; those that tell who it is stand beside it.
constexpr std::pair<const char*, uint64_t RankReport::*> kCounts[] = {
    {"weight_bytes", &RankReport::weight_bytes},
    {"planned_weight_bytes", &RankReport::planned_weight_bytes},
    {"rows_brought", &RankReport::rows_brought},
    {"rows_sent", &RankReport::rows_sent},
    {"rows_received", &RankReport::rows_received},
    {"expert_rows", &RankReport::expert_rows},
    {"sequence_parallel_rows", &RankReport::sequence_parallel_rows},
    {"agreements", &RankReport::agreements},
    {"placement_switches", &RankReport::placement_switches},
    {"experts_moved", &RankReport::experts_moved},
    {"failed_moves", &RankReport::failed_moves},
    {"balancedness_permille", &RankReport::balancedness_permille},
    {"steps", &RankReport::steps},
    {"steps_without_rows", &RankReport::steps_without_rows},
    {"epoch", &RankReport::epoch},
    {"epoch_changes", &RankReport::epoch_changes},
    {"nanoseconds_between_epochs", &RankReport::nanoseconds_between_epochs},
    {"living_ranks", &RankReport::living_ranks},
    {"ranks_lost", &RankReport::ranks_lost},
    {"lost_experts_loaded", &RankReport::lost_experts_loaded},
    {"nanoseconds_computing", &RankReport::nanoseconds_computing},
    {"nanoseconds_exchanging", &RankReport::nanoseconds_exchanging},
    {"nanoseconds_waiting", &RankReport::nanoseconds_waiting},
    {"shm_bytes_sent", &RankReport::shm_bytes_sent},
    {"shm_bytes_received", &RankReport::shm_bytes_received},
    {"ucx_bytes_sent", &RankReport::ucx_bytes_sent},
    {"ucx_bytes_received", &RankReport::ucx_bytes_received}};
constexpr std::pair<const char*, int64_t RankReport::*> kPlaces[] = {
    {"dp_rank", &RankReport::dp_rank},           {"tp_rank", &RankReport::tp_rank},
    {"moe_layers", &RankReport::moe_layers},     {"num_experts", &RankReport::num_experts},
    {"expert_slots", &RankReport::expert_slots}, {"experts_held", &RankReport::experts_held}};
constexpr std::pair<const char*, int64_t RankReport::*> kPlacement[] = {
    {"placement_version", &RankReport::placement_version}, {"placement_hash", &RankReport::placement_hash}};
constexpr int64_t kMostExperts = 1 << 28;  // of all layers, and ranks

json::value describe(const std::optional<StateFailure>& failure) {
  if (!failure) return nullptr;
  json::object object{{"code", name_of(failure->code)}};
  object["rank"] = failure->rank >= 0 ? json::value(failure->rank) : json::value();
  return object;
}

json::object describe(const RankReport& report, int64_t resident_bytes) {
  json::object object{{"resident_bytes", resident_bytes}};
  for (const auto& [name, place] : kPlaces) object[name] = report.*place;
  for (const auto& [name, number] : kPlacement) object[name] = report.*number;
  for (const auto& [name, count] : kCounts) object[name] = report.*count;
  // Up to the last layer that has any.
  const auto last = std::find_if(report.layer_expert_rows.rbegin(), report.layer_expert_rows.rend(),
                                 [](uint64_t rows) { return rows > 0; });
  object["expert_rows_by_layer"] = json::array(report.layer_expert_rows.begin(), last.base());
  return object;
}

json::object describe(const LatencyCounts& latencies) {
  return {{"bounds", json::array(latencies.bounds.begin(), latencies.bounds.end())},
          {"counts", json::array(latencies.counts.begin(), latencies.counts.end())}};
}

json::value describe(const std::optional<ServerCounts>& counts) {
  if (!counts) return nullptr;
  return {{"prompt_tokens", counts->prompt_tokens},
          {"generation_tokens", counts->generation_tokens},
          {"prefix_queried_tokens", counts->prefix_queried_tokens},
          {"prefix_hit_tokens", counts->prefix_hit_tokens},
          {"first_token_seconds", describe(counts->first_token_seconds)},
          {"between_tokens_seconds", describe(counts->between_tokens_seconds)}};
}

json::object describe(const StateOfRank& rank) {
  return {{"rank", rank.rank},
          {"phase", name_of(rank.phase)},
          {"percent", rank.percent},
          {"failure", describe(rank.failure)},
          {"host", to_valid_utf8(rank.host)},
          {"pid", rank.pid},
          {"report", rank.report ? json::value(describe(*rank.report, rank.resident_bytes)) : json::value()}};
}

// The fields of an object of somebody else's; the first fault is kept.
class Fields {
 public:
  Fields(const json::value& value, std::string_view what, Status& status) : status_(status) {
    object_ = value.if_object();
    if (!object_) fault(what, "is no object");
  }

  // In [least, most]; null counts as absent.
  int64_t number(const char* name, int64_t least, int64_t most, bool may_miss = false) {
    const json::value* const value = find(name, may_miss);
    if (!value) return least;
    json::error_code failed;
    const auto number = value->is_number() ? value->to_number<int64_t>(failed) : 0;
    if (!value->is_number() || failed || number < least || number > most) {
      fault(name, fmt::format("is no number from {} to {}", least, most));
      return least;
    }
    return number;
  }
  std::string_view text(const char* name) {
    const json::value* const value = find(name, false);
    if (value && !value->is_string()) fault(name, "is no text");
    return value && value->is_string() ? std::string_view(value->get_string()) : std::string_view();
  }
  template <size_t size>
  size_t one_of(const char* name, const std::array<std::string_view, size>& names) {
    const auto found = std::ranges::find(names, text(name));
    if (found == names.end()) fault(name, "is none that is known");
    return found == names.end() ? 0 : static_cast<size_t>(found - names.begin());
  }
  // Null where it is absent or null.
  const json::value* find(const char* name, bool may_miss) {
    const json::value* const value = object_ ? object_->if_contains(name) : nullptr;
    if ((!value || value->is_null()) && !may_miss) fault(name, "is missing");
    return value && !value->is_null() ? value : nullptr;
  }
  void fault(std::string_view name, std::string_view what) {
    if (status_) status_ = make_error(ErrorCode::kCorrupt, "the state of a server: {} {}", name, what);
  }

 private:
  const json::object* object_ = nullptr;
  Status& status_;
};

ErrorCode read_code(Fields& failure) {
  const std::optional<ErrorCode> code = error_code_named(failure.text("code"));
  if (!code) failure.fault("code", "is none that is known");
  return code.value_or(ErrorCode::kInternal);
}

std::optional<StateFailure> read_failure(Fields& fields, Status& status) {
  const json::value* const value = fields.find("failure", true);
  if (!value) return std::nullopt;
  Fields failure(*value, "failure", status);
  return StateFailure{.code = read_code(failure),
                      .rank = static_cast<int>(failure.number("rank", -1, kMostExperts, true))};
}

StateOfRank read_rank(const json::value& value, Status& status) {
  constexpr int64_t kMost = INT64_MAX;
  Fields fields(value, "a rank", status);
  StateOfRank rank{.rank = static_cast<int>(fields.number("rank", 0, kMostExperts)),
                   .phase = static_cast<RankPhase>(fields.one_of("phase", kPhases)),
                   .percent = static_cast<int>(fields.number("percent", 0, 100)),
                   .failure = read_failure(fields, status),
                   .host = escaped(fields.text("host"), kLongestHost),
                   .pid = fields.number("pid", 0, kMost)};
  const json::value* const report = fields.find("report", true);
  if (!report) return rank;
  Fields numbers(*report, "a report", status);
  rank.resident_bytes = numbers.number("resident_bytes", -1, kMost);
  rank.report.emplace(RankReport{.rank = rank.rank, .pid = rank.pid});
  for (const auto& [name, place] : kPlaces) (*rank.report).*place = numbers.number(name, 0, kMostExperts);
  for (const auto& [name, number] : kPlacement) (*rank.report).*number = numbers.number(name, 0, kMost);
  for (const auto& [name, count] : kCounts)
    (*rank.report).*count = static_cast<uint64_t>(numbers.number(name, 0, kMost));
  return rank;
}

}  // namespace

std::string_view name_of(RankPhase phase) {
  return kPhases[std::min(static_cast<size_t>(phase), kPhases.size() - 1)];
}

int ServerState::percent() const {
  if (phase == RankPhase::kReady || phase == RankPhase::kDraining) return 100;
  int64_t sum = 0;
  for (const StateOfRank& rank : ranks) sum += rank.percent;
  return ranks.empty() ? 0 : static_cast<int>(sum / std::ssize(ranks));
}

std::string to_json(const ServerState& state) {
  json::array ranks;
  for (const StateOfRank& rank : state.ranks) ranks.push_back(describe(rank));
  return json::serialize(json::object{{"version", kVersion1},
                                      {"kind", "server"},
                                      {"phase", name_of(state.phase)},
                                      {"percent", state.percent()},
                                      {"failure", describe(state.failure)},
                                      {"running", state.num_running},
                                      {"waiting", state.num_waiting},
                                      {"kv_usage_percent", state.kv_usage_percent},
                                      {"ranks", std::move(ranks)},
                                      {"epoch", state.epoch},
                                      {"healing", state.is_healing},
                                      {"counts", describe(state.counts)}}) +
         "\n";
}

Result<ServerState> parse_server_state(std::string_view text, size_t most_ranks) {
  const auto fault = [](std::string_view what) {
    return make_error(ErrorCode::kCorrupt, "the state of a server {}", what);
  };
  if (text.size() > kMostBytes) return fault(fmt::format("has {} bytes", text.size()));
  json::error_code failed;
  const json::value parsed = json::parse(text, failed);
  if (failed) return fault("is no JSON: " + failed.message());
  Status status;
  Fields fields(parsed, "it", status);
  if (fields.number("version", 0, INT64_MAX) != kVersion1 && status) return fault("is of another version");
  ServerState state{.phase = static_cast<RankPhase>(fields.one_of("phase", kPhases)),
                    .failure = read_failure(fields, status),
                    .num_running = static_cast<int>(fields.number("running", 0, INT32_MAX)),
                    .num_waiting = static_cast<int>(fields.number("waiting", 0, INT32_MAX)),
                    .kv_usage_percent = static_cast<int>(fields.number("kv_usage_percent", 0, 100))};
  if (const json::value* const told = fields.find("counts", true)) {
    Fields counts(*told, "counts", status);
    const auto count = [&](const char* name) { return static_cast<uint64_t>(counts.number(name, 0, INT64_MAX)); };
    state.counts = {.prompt_tokens = count("prompt_tokens"), .generation_tokens = count("generation_tokens")};
  }
  const json::value* const ranks = fields.find("ranks", false);
  RETURN_IF_ERROR(status);
  if (!ranks->is_array()) return fault("has ranks that are no list");
  if (ranks->get_array().size() > most_ranks)
    return fault(fmt::format("has {} ranks, more than {}", ranks->get_array().size(), most_ranks));
  for (const json::value& rank : ranks->get_array()) state.ranks.push_back(read_rank(rank, status));
  RETURN_IF_ERROR(status);
  return state;
}

}  // namespace cachalot
