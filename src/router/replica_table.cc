#include "router/replica_table.h"

#include <algorithm>
#include <boost/json/parse.hpp>
#include <type_traits>

#include "base/log.h"
#include "base/text.h"

namespace cachalot::router {

namespace {

// What is beyond these is no load, whoever says so.
constexpr double kMostSequences = 1e6, kMostTokens = 1e12;
// What a sequence costs its neighbours, beside its prompt, in tokens of prefill: it brings one row to each of the next
// steps. Answers have some hundred tokens, and a decode row costs about as much as a prefill row or, on wide machines,
// less.
constexpr double kTokensPerSequence = 64;
// A full KV cache makes newcomers wait and others be computed again.
constexpr double kLeastFreeKv = 0.05;
constexpr double kBytesPerToken = 4;

void log_change(const std::string& url, const ReplicaHealth& before, const ReplicaHealth& after) {
  if (after.is_up() && !before.is_up()) log::info("{} takes requests", url);
  if (!after.is_up() && before.is_up()) log::warn("{} gets no more requests: {}", url, after.reason());
}

}  // namespace

Result<LoadReport> parse_load_report(std::string_view text) {
  boost::json::error_code error;
  const boost::json::value json = boost::json::parse(boost::json::string_view(text.data(), text.size()), error);
  const auto* object = error ? nullptr : json.if_object();
  if (!object) return make_error(ErrorCode::kCorrupt, "a load report is no JSON object");
  LoadReport report;
  std::string odd;
  const auto read = [&](const char* name, auto& into, double most) {
    const boost::json::value* value = object->if_contains(name);
    if (!value) return;
    const double number = value->is_number() ? value->to_number<double>() : -1;
    if (number >= 0 && number <= most)
      into = static_cast<std::remove_reference_t<decltype(into)>>(number);
    else
      odd = name;
  };
  read("running", report.num_running, kMostSequences);
  read("waiting", report.num_waiting, kMostSequences);
  read("pending_tokens", report.num_pending_tokens, kMostTokens);
  read("kv_usage", report.kv_usage, 1);
  if (const boost::json::value* instance = object->if_contains("instance"); instance && instance->is_string())
    report.instance = instance->get_string();
  if (const boost::json::value* value = object->if_contains("fingerprint"); value && value->is_string())
    report.fingerprint = value->get_string();
  if (const boost::json::value* value = object->if_contains("healing"); value && value->is_bool())
    report.is_healing = value->get_bool();
  if (!odd.empty())
    return make_error(ErrorCode::kCorrupt, "the load report's {} is no number, or none that can be: {}", odd,
                      quoted(text));
  return report;
}

double predicted_work(const Candidate& candidate, double num_prompt_tokens) {
  const LoadReport& report = candidate.report;
  const double num_sequences = std::max(0, report.num_running + report.num_waiting + candidate.num_unreported);
  const double pending = std::max(0.0, report.num_pending_tokens + candidate.unreported_tokens);
  const double queued = (pending + num_sequences * kTokensPerSequence) / std::max(kLeastFreeKv, 1 - report.kv_usage);
  const double own = std::max(1.0, num_prompt_tokens - candidate.known_tokens);
  return (queued + own) / candidate.ramp;
}

std::optional<size_t> choose_replica(std::span<const Candidate> candidates, double num_prompt_tokens, size_t start) {
  std::optional<size_t> best;
  double least_work = 0;
  for (size_t step = 0; step < candidates.size(); step++) {
    const size_t idx = (start + step) % candidates.size();
    if (!candidates[idx].is_open) continue;
    const double work = predicted_work(candidates[idx], num_prompt_tokens);
    if (best && work >= least_work) continue;
    best = idx;
    least_work = work;
  }
  return best;
}

ReplicaTable::Place::Place(Place&& other) noexcept
    : table_(std::exchange(other.table_, nullptr)), replica_(other.replica_), id_(other.id_) {}

ReplicaTable::Place::~Place() {
  if (table_) table_->leave(replica_, id_);
}

ReplicaTable::ReplicaTable(const std::vector<std::string>& urls, const HealthPolicy& policy, const Limits& limits)
    : limits_(limits), last_heard_(urls.size()), affinity_(static_cast<size_t>(limits.prefix_entries)) {
  for (const std::string& url : urls) replicas_.emplace_back(url, policy);
}

bool ReplicaTable::is_full(const Replica& replica) const {
  return limits_.max_in_flight_per_replica > 0 &&
         static_cast<int>(replica.visits.size()) >= limits_.max_in_flight_per_replica;
}

Candidate ReplicaTable::candidate(size_t idx, size_t known_bytes, Time now) const {
  const Replica& replica = replicas_[idx];
  return {.is_open = replica.health.is_up() && !replica.report.is_healing,
          .report = replica.report,
          .num_unreported = replica.since_report.num_requests,
          .unreported_tokens = replica.since_report.num_tokens,
          .known_tokens = static_cast<double>(known_bytes) / kBytesPerToken,
          .ramp = replica.health.ramp(now)};
}

std::expected<ReplicaTable::Place, NoPlace> ReplicaTable::admit(const RequestFacts& facts,
                                                                std::span<const size_t> sent_to,
                                                                std::optional<size_t> forced,
                                                                std::weak_ptr<SilenceListener> listener, Time now) {
  const std::lock_guard lock(mutex_);
  if (limits_.max_in_flight > 0 && num_in_flight_ >= limits_.max_in_flight)
    return std::unexpected(NoPlace::kRouterFull);
  const std::vector<size_t> known = affinity_.known_bytes(facts.prefixes, replicas_.size());
  std::vector<Candidate> candidates;
  bool any_full = false;
  for (size_t idx = 0; idx < replicas_.size(); idx++) {
    Candidate& candidate = candidates.emplace_back(this->candidate(idx, known[idx], now));
    if (std::ranges::find(sent_to, idx) != sent_to.end() || (forced && idx != *forced)) candidate.is_open = false;
    if (!facts.fingerprint.empty() && replicas_[idx].report.fingerprint != facts.fingerprint) candidate.is_open = false;
    if (!candidate.is_open || !is_full(replicas_[idx])) continue;
    candidate.is_open = false;
    any_full = true;
  }
  const auto chosen = choose_replica(candidates, facts.num_prompt_tokens, next_id_ % replicas_.size());
  if (!chosen)
    return std::unexpected(any_full ? NoPlace::kAllFull : forced ? NoPlace::kForcedIsDown : NoPlace::kNoneUp);
  Replica& replica = replicas_[*chosen];
  const double num_tokens = std::max(0.0, facts.num_prompt_tokens - candidates[*chosen].known_tokens);
  for (Unreported* unreported : {&replica.since_question, &replica.since_report}) {
    unreported->num_requests++;
    unreported->num_tokens += num_tokens;
  }
  affinity_.remember(facts.prefixes, *chosen);
  num_in_flight_++;
  const uint64_t id = next_id_++;
  replica.visits.emplace(id, Visit{std::move(listener), replica.last_question, num_tokens});
  return Place(*this, *chosen, id);
}

void ReplicaTable::leave(size_t idx, uint64_t id) {
  const std::lock_guard lock(mutex_);
  Replica& replica = replicas_[idx];
  const auto visit = replica.visits.find(id);
  // A report that was asked for after the request was sent holds it, and will no more.
  const auto subtract = [&](Unreported& unreported, uint64_t question) {
    unreported.num_requests--;
    if (visit->second.question >= question) unreported.num_tokens -= visit->second.num_tokens;
  };
  subtract(replica.since_question, replica.last_question);
  subtract(replica.since_report, replica.reported_question);
  replica.visits.erase(visit);
  num_in_flight_--;
}

void ReplicaTable::question_asked(size_t idx) {
  const std::lock_guard lock(mutex_);
  replicas_[idx].last_question++;
  replicas_[idx].since_question = {};
}

void ReplicaTable::heard_well(size_t idx, const std::optional<LoadReport>& report, Time now) {
  if (report) {
    tell_of_start(idx, report->instance);
    const std::lock_guard lock(mutex_);
    Replica& replica = replicas_[idx];
    replica.report = *report;
    replica.since_report = replica.since_question;
    replica.reported_question = replica.last_question;
  }
  change_health(idx, [&](ReplicaHealth& health) { health.heard_well(now); });
}

void ReplicaTable::tell_of_start(size_t idx, const std::string& mark) {
  std::vector<std::pair<std::weak_ptr<SilenceListener>, bool>> listeners;
  {
    const std::lock_guard lock(mutex_);
    const Replica& replica = replicas_[idx];
    if (replica.report.instance.empty() || replica.report.instance == mark) return;
    for (const auto& [id, visit] : replica.visits)
      listeners.emplace_back(visit.listener, visit.question < replica.reported_question);
  }
  log::info("{} was started anew", replicas_[idx].url);
  for (const auto& [weak, was_older] : listeners)
    if (const auto listener = weak.lock()) listener->replica_is_new(idx, mark, was_older);
}

template <class Change>
void ReplicaTable::change_health(size_t idx, Change change) {
  std::vector<std::weak_ptr<SilenceListener>> listeners;
  {
    const std::lock_guard lock(mutex_);
    Replica& replica = replicas_[idx];
    const ReplicaHealth before = replica.health;
    change(replica.health);
    log_change(replica.url, before, replica.health);
    if (before.is_up() && !replica.health.is_up()) affinity_.forget(idx);  // it may come back as another process
    if (replica.health.is_silent() && !before.is_silent())
      for (const auto& [id, visit] : replica.visits) listeners.push_back(visit.listener);
  }
  for (const auto& weak : listeners)
    if (const auto listener = weak.lock()) listener->replica_is_silent(idx);
}

void ReplicaTable::heard_ill(size_t idx, const std::string& reason) {
  change_health(idx, [&](ReplicaHealth& health) { health.heard_ill(reason); });
}

void ReplicaTable::heard_nothing(size_t idx, const std::string& reason, Time since) {
  if (!was_heard(idx, since)) change_health(idx, [&](ReplicaHealth& health) { health.heard_nothing(reason); });
}

void ReplicaTable::was_refused(size_t idx, const std::string& reason, Time since) {
  if (!was_heard(idx, since)) change_health(idx, [&](ReplicaHealth& health) { health.was_refused(reason); });
}

void ReplicaTable::request_not_taken(size_t idx, const std::string& reason, Time since) {
  if (!was_heard(idx, since)) change_health(idx, [&](ReplicaHealth& health) { health.request_not_taken(reason); });
}

void ReplicaTable::request_failed(size_t idx, const std::string& reason, bool has_words, Time now) {
  change_health(idx, [&](ReplicaHealth& health) { health.request_failed(now, reason, has_words); });
}

void ReplicaTable::request_answered(size_t idx) {
  const std::lock_guard lock(mutex_);
  replicas_[idx].health.request_answered();
}

bool ReplicaTable::any_up() const {
  const std::lock_guard lock(mutex_);
  return std::ranges::any_of(replicas_, [](const Replica& replica) { return replica.health.is_up(); });
}

bool ReplicaTable::any_marks() const {
  const std::lock_guard lock(mutex_);
  return std::ranges::any_of(
      replicas_, [](const Replica& replica) { return replica.health.is_up() && !replica.report.instance.empty(); });
}

std::optional<size_t> ReplicaTable::holder_of(std::string_view mark) const {
  const std::lock_guard lock(mutex_);
  const auto holder = std::ranges::find_if(
      replicas_, [&](const Replica& replica) { return replica.health.is_up() && replica.report.instance == mark; });
  if (holder == replicas_.end()) return std::nullopt;
  return static_cast<size_t>(holder - replicas_.begin());
}

bool ReplicaTable::is_silent(size_t idx) const {
  const std::lock_guard lock(mutex_);
  return replicas_[idx].health.is_silent();
}

std::vector<ReplicaStatus> ReplicaTable::status(Time now) const {
  std::vector<ReplicaStatus> all;
  const std::lock_guard lock(mutex_);
  for (const Replica& replica : replicas_)
    all.push_back({replica.url, replica.health, replica.report, static_cast<int>(replica.visits.size()),
                   replica.health.ramp(now)});
  return all;
}

}  // namespace cachalot::router
