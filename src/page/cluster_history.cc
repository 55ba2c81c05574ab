#include "page/cluster_history.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "base/text.h"
#include "config/json.h"
#include "http/message.h"

namespace cachalot::page {
namespace {

namespace json = boost::json;

constexpr double kNothing = std::numeric_limits<double>::quiet_NaN();
// A rank is waited for where others spend at least this part of their steps waiting, and it so much less.
constexpr double kWaits = 0.2, kLess = 0.15;
constexpr int kTimesUntilSlow = 4;  // of points in a row
constexpr int kLooksInDoubt = 2;

double grown(uint64_t before, uint64_t now) {
  return now > before ? static_cast<double>(now - before) : 0;
}

double rounded(double value) {
  return std::round(value * 1000) / 1000;
}

json::value number_or_null(double value) {
  return std::isfinite(value) ? json::value(rounded(value)) : json::value();
}

json::value text_or_null(const std::string& text) {
  return text.empty() ? json::value() : json::value(text);
}

// "ranks 2 and 3"
std::string ranks_text(const std::vector<RankView>& ranks) {
  std::vector<std::string> names;
  for (const RankView& rank : ranks) names.push_back(std::to_string(rank.rank));
  return (names.size() == 1 ? "rank " : "ranks ") + listed(names, 8);
}

void add_growth(const HistogramView& before, const HistogramView& now, HistogramView& sum) {
  if (now.bounds.empty() || before.bounds != now.bounds) return;
  if (sum.bounds.empty()) sum = {now.bounds, std::vector<uint64_t>(now.counts.size())};
  if (sum.bounds != now.bounds) return;
  for (size_t idx = 0; idx < now.counts.size(); idx++)
    sum.counts[idx] += now.counts[idx] > before.counts[idx] ? now.counts[idx] - before.counts[idx] : 0;
}

bool goes_on_from(const ServerView& before, const ServerView& now) {
  if (now.generation_tokens < before.generation_tokens || now.prompt_tokens < before.prompt_tokens) return false;
  return before.ranks.size() == now.ranks.size() &&
         std::ranges::equal(before.ranks, now.ranks, [](const RankView& a, const RankView& b) {
           return a.pid == b.pid && a.has_report == b.has_report && a.steps <= b.steps;
         });
}

}  // namespace

const std::array<const char*, ClusterHistory::kNumSeries> ClusterHistory::kSeries{
    "generation", "prompt",          "running",         "waiting",        "kv",
    "hits",       "first_token_p50", "first_token_p95", "next_token_p50", "next_token_p95"};

double quantile_of(const HistogramView& histogram, double quantile) {
  uint64_t total = 0;
  for (const uint64_t count : histogram.counts) total += count;
  if (total == 0) return kNothing;
  double left = quantile * static_cast<double>(total), lower = 0;
  for (size_t idx = 0; idx < histogram.bounds.size(); idx++) {
    const auto count = static_cast<double>(histogram.counts[idx]);
    if (count > 0 && left <= count) return lower + (histogram.bounds[idx] - lower) * left / count;
    left -= count;
    lower = histogram.bounds[idx];
  }
  return lower;
}

double ClusterHistory::Member::seconds() const {
  return looks.empty() ? 0 : static_cast<double>(looks.back().time - looks.front().time) / 1000;
}

const RankView* ClusterHistory::Member::before(const RankView& rank) const {
  if (looks.empty()) return nullptr;
  const auto& ranks = looks.front().server.ranks;
  const auto found = std::ranges::find(ranks, rank.rank, &RankView::rank);
  return found == ranks.end() ? nullptr : &*found;
}

ClusterHistory::Shares ClusterHistory::shares(const Member& member, const RankView& rank) {
  const RankView* const before = member.before(rank);
  const double seconds = member.seconds();
  if (!before || seconds <= 0) return {};
  const double computing = grown(before->nanoseconds_computing, rank.nanoseconds_computing);
  const double exchanging = grown(before->nanoseconds_exchanging, rank.nanoseconds_exchanging);
  const double waiting = grown(before->nanoseconds_waiting, rank.nanoseconds_waiting);
  const double total = computing + exchanging + waiting;
  if (total <= 0) return {};
  return {.computing = computing / total,
          .exchanging = exchanging / total,
          .waiting = waiting / total,
          .busy = std::min(total * 1e-9 / seconds, 1.0)};
}

// One that drains takes no requests, as one that is lost; it says so itself, a moment after others have noticed.
std::string ClusterHistory::judge(Member& member, const MemberView& now) {
  if (now.state != "down" || !now.server) {
    member.num_doubts = 0;
    return now.state;
  }
  if (now.server->phase == "draining") return "draining";
  const bool may_drain = member.state == "up" && now.server->phase == "ready" && ++member.num_doubts <= kLooksInDoubt;
  if (!may_drain) member.num_doubts = 0;
  return may_drain ? "up" : now.state;
}

void ClusterHistory::note(const char* kind, std::string text) {
  events_.push_back({now_, kind, std::move(text)});
  if (events_.size() > kMostEvents) events_.pop_front();
  const Event& event = events_.back();
  news_ += http::format_sse(json_text({{"t", event.time}, {"kind", event.kind}, {"text", event.text}}), "event");
}

void ClusterHistory::compare(size_t idx, const MemberView& now) {
  Member& member = members_[idx];
  const std::string name = cluster_.members.size() == 1 ? "the server" : fmt::format("replica {}", idx);
  const std::string was = std::exchange(member.state, now.state);
  const std::string had = std::exchange(member.phase, now.server ? now.server->phase : member.phase);
  if (was != now.state && (now.state != "starting" || !was.empty())) {
    if (now.state == "down" && was == "draining") {
      note("note", fmt::format("{} has ended", name));
    } else if (now.state == "down") {
      const std::string ranks =
          member.looks.empty() ? std::string() : fmt::format(" with {}", ranks_text(member.looks.back().server.ranks));
      note("lost", fmt::format("{}{} is lost{}{}", name, ranks, now.reason.empty() ? "" : ": ", now.reason));
    } else if (now.state == "up") {
      note("back", fmt::format("{} {}", name,
                               was == "down" || was == "draining" ? "is back and takes requests" : "takes requests"));
    }
  }
  if (!now.server) return;
  if (had != now.server->phase) {
    if (now.server->phase == "failed")
      note("lost", fmt::format("{} has failed: {}", name, now.server->failure));
    else if (now.server->phase == "draining")
      note("note", fmt::format("{} drains: it finishes what it has begun", name));
  }
  if (!member.looks.empty()) compare_ranks(idx, member.looks.back().server, *now.server);
}

void ClusterHistory::compare_ranks(size_t idx, const ServerView& before, const ServerView& now) {
  std::vector<RankView> anew;
  for (const RankView& rank : now.ranks) {
    const auto old = std::ranges::find(before.ranks, rank.rank, &RankView::rank);
    if (old == before.ranks.end()) continue;
    if (rank.phase == "failed" && old->phase != "failed")
      note("lost", fmt::format("rank {} has failed{}{}", rank.rank, rank.failure.empty() ? "" : ": ", rank.failure));
    if (rank.host != old->host && !old->host.empty() && !rank.host.empty())
      note("moved", fmt::format("rank {} moved from {} to {}", rank.rank, old->host, rank.host));
    else if (rank.pid != old->pid && rank.pid > 0 && old->pid > 0)
      anew.push_back(rank);
  }
  if (!anew.empty()) note("note", fmt::format("replica {}: {} started anew", idx, ranks_text(anew)));
  if (now.is_healing && !before.is_healing)
    note("lost", fmt::format("replica {} lacks a rank, which is to come back; its answers wait for it", idx));
  if (!now.is_healing && before.is_healing) note("back", fmt::format("replica {} is whole, its answers go on", idx));
  if (now.epoch > before.epoch && before.epoch > 0)
    note("note", fmt::format("replica {}: its group formed anew, epoch {}", idx, now.epoch));
}

void ClusterHistory::add_look(size_t idx, const MemberView& now) {
  std::deque<Look>& looks = members_[idx].looks;
  members_[idx].is_told = now.server.has_value();
  if (!now.server) return;
  if (!looks.empty() && (now_ <= looks.back().time || !goes_on_from(looks.back().server, *now.server))) looks.clear();
  looks.push_back({now_, *now.server});
  while (looks.size() > 2 && looks[1].time <= now_ - kStepMs) looks.pop_front();
}

// Ranks whose numbers are a whole cluster's step together; else each server's by themselves.
std::vector<std::vector<size_t>> ClusterHistory::groups() const {
  std::set<int64_t> numbers;
  std::vector<size_t> all;
  std::vector<std::vector<size_t>> each;
  bool are_distinct = true;
  for (size_t idx = 0; idx < members_.size(); idx++) {
    if (!members_[idx].is_told || cluster_.members[idx].state != "up") continue;
    for (const RankView& rank : members_[idx].looks.back().server.ranks)
      are_distinct &= numbers.insert(rank.rank).second;
    all.push_back(idx);
    each.push_back({idx});
  }
  if (are_distinct && !all.empty()) return {std::move(all)};
  return each;
}

ClusterHistory::Laggard ClusterHistory::find_laggard(const std::vector<size_t>& members) const {
  Laggard least{.own_wait = 2, .is_known = true};
  double sum = 0;
  int num_ranks = 0;
  for (const size_t idx : members)
    for (const RankView& rank : members_[idx].looks.back().server.ranks) {
      const Shares now = shares(members_[idx], rank);
      if (now.busy <= 0) continue;
      num_ranks++;
      sum += now.waiting;
      if (now.waiting < least.own_wait) {
        least.rank = rank.rank;
        least.own_wait = now.waiting;
      }
    }
  if (num_ranks < 2) return {};
  least.others_wait = (sum - least.own_wait) / (num_ranks - 1);
  return least.others_wait >= kWaits && least.others_wait - least.own_wait >= kLess ? least : Laggard{.is_known = true};
}

void ClusterHistory::find_waits() {
  laggards_.assign(members_.size(), {});
  for (const std::vector<size_t>& group : groups()) {
    const Laggard laggard = find_laggard(group);
    for (const size_t idx : group) laggards_[idx] = laggard;
  }
}

void ClusterHistory::note_slow() {
  if (std::ranges::none_of(laggards_, &Laggard::is_known)) return;
  const auto worst = std::ranges::max_element(laggards_, {}, &Laggard::others_wait);
  const Laggard now = worst == laggards_.end() ? Laggard() : *worst;
  num_times_slow_ = now.rank >= 0 && now.rank == slow_rank_ ? num_times_slow_ + 1 : 0;
  slow_rank_ = now.rank;
  if (num_times_slow_ >= kTimesUntilSlow && said_slow_ != slow_rank_) {
    said_slow_ = slow_rank_;
    note("slow", fmt::format("rank {} is slow: the others wait {:.0f}% of their steps, it waits {:.0f}%", now.rank,
                             100 * now.others_wait, 100 * now.own_wait));
  } else if (said_slow_ >= 0 && now.rank != said_slow_) {
    note("back", fmt::format("rank {} keeps up again", std::exchange(said_slow_, -1)));
  }
}

ClusterHistory::Point ClusterHistory::measure() const {
  double generated = 0, prompts = 0, running = 0, waiting = 0, kv = 0, queried = 0, hit = 0;
  HistogramView first, between;
  int num_up = 0;
  bool has_rates = false;
  for (size_t idx = 0; idx < members_.size(); idx++) {
    const MemberView& now = cluster_.members[idx];
    if (now.state != "up") continue;
    num_up++;
    running += static_cast<double>(now.server ? now.server->num_running : now.num_running);
    waiting += static_cast<double>(now.server ? now.server->num_waiting : now.num_waiting);
    kv += now.server ? static_cast<double>(now.server->kv_usage_percent) / 100 : now.kv_usage;
    const Member& member = members_[idx];
    const double seconds = member.seconds();
    if (!member.is_told || seconds <= 0 || !member.looks.back().server.has_counts) continue;
    has_rates = true;
    const ServerView& old = member.looks.front().server;
    const ServerView& last = member.looks.back().server;
    generated += grown(old.generation_tokens, last.generation_tokens) / seconds;
    prompts += grown(old.prompt_tokens, last.prompt_tokens) / seconds;
    queried += grown(old.prefix_queried_tokens, last.prefix_queried_tokens);
    hit += grown(old.prefix_hit_tokens, last.prefix_hit_tokens);
    add_growth(old.first_token, last.first_token, first);
    add_growth(old.between_tokens, last.between_tokens, between);
  }
  const auto known = [](bool is_known, double value) { return is_known ? value : kNothing; };
  return {now_,
          {known(has_rates, generated), known(has_rates, prompts), known(num_up > 0, running),
           known(num_up > 0, waiting), known(num_up > 0, kv / std::max(num_up, 1)), known(queried > 0, hit / queried),
           quantile_of(first, 0.5), quantile_of(first, 0.95), quantile_of(between, 0.5), quantile_of(between, 0.95)}};
}

std::string ClusterHistory::observe(int64_t now_ms, ClusterView cluster) {
  news_.clear();
  now_ = now_ms;
  cluster_ = std::move(cluster);
  members_.resize(cluster_.members.size());
  laggards_.resize(cluster_.members.size());
  for (size_t idx = 0; idx < members_.size(); idx++) {
    cluster_.members[idx].state = judge(members_[idx], cluster_.members[idx]);
    compare(idx, cluster_.members[idx]);
    add_look(idx, cluster_.members[idx]);
  }
  find_waits();
  std::string text = state_event();
  if (now_ >= next_point_ || now_ + kStepMs < next_point_) {  // the clock may be set back
    next_point_ = now_ - now_ % kStepMs + kStepMs;
    note_slow();
    points_.push_back(measure());
    if (points_.size() > kMostPoints) points_.pop_front();
    json::object point{{"t", now_}};
    for (size_t idx = 0; idx < kNumSeries; idx++) point[kSeries[idx]] = number_or_null(points_.back().values[idx]);
    text += http::format_sse(json_text(point), "point") + experts_event();
  }
  return text + news_;
}

std::string ClusterHistory::greeting() const {
  json::object series;
  json::array times;
  for (const Point& point : points_) times.push_back(point.time);
  series["t"] = std::move(times);
  for (size_t idx = 0; idx < kNumSeries; idx++) {
    json::array values;
    for (const Point& point : points_) values.push_back(number_or_null(point.values[idx]));
    series[kSeries[idx]] = std::move(values);
  }
  json::array events;
  for (const Event& event : events_) events.push_back({{"t", event.time}, {"kind", event.kind}, {"text", event.text}});
  return http::format_sse(json_text({{"kind", names_.kind},
                                     {"version", names_.version},
                                     {"model", names_.model},
                                     {"step", kStepMs},
                                     {"series", std::move(series)},
                                     {"events", std::move(events)}}),
                          "hello") +
         (now_ > 0 ? state_event() + experts_event() : std::string());
}

std::string ClusterHistory::state_event() const {
  json::array replicas;
  for (size_t idx = 0; idx < cluster_.members.size(); idx++) {
    const MemberView& now = cluster_.members[idx];
    const Member& member = members_[idx];
    json::object replica{{"replica", idx},
                         {"url", now.url},
                         {"state", now.state},
                         {"reason", text_or_null(now.reason)},
                         {"in_flight", now.num_in_flight}};
    // Of one that is gone, what it was.
    const ServerView* const server = now.server             ? &*now.server
                                     : member.looks.empty() ? nullptr
                                                            : &member.looks.back().server;
    replica["phase"] = now.server ? json::value(now.server->phase) : json::value();
    replica["running"] = now.server ? now.server->num_running : now.num_running;
    replica["waiting"] = now.server ? now.server->num_waiting : now.num_waiting;
    replica["kv"] = now.server ? static_cast<double>(now.server->kv_usage_percent) / 100 : rounded(now.kv_usage);
    replica["epoch"] = server && server->epoch > 0 ? json::value(server->epoch) : json::value();
    const double seconds = member.seconds();
    replica["tokens_per_second"] = now.state == "up" && member.is_told && seconds > 0
                                       ? json::value(rounded(grown(member.looks.front().server.generation_tokens,
                                                                   member.looks.back().server.generation_tokens) /
                                                             seconds))
                                       : json::value();
    json::array ranks;
    if (server)
      for (const RankView& rank : server->ranks) {
        const Shares part = shares(member, rank);
        const RankView* const before = member.before(rank);
        const Laggard& laggard = laggards_[idx];
        const double steps = before ? grown(before->steps, rank.steps) : 0;
        const double idle = before ? grown(before->steps_without_rows, rank.steps_without_rows) : 0;
        ranks.push_back({{"rank", rank.rank},
                         {"phase", now.state == "down" ? "lost" : rank.phase},
                         {"failure", text_or_null(rank.failure)},
                         {"percent", rank.percent},
                         {"host", rank.host},
                         {"pid", rank.pid},
                         {"resident_bytes", rank.resident_bytes},
                         {"weight_bytes", rank.weight_bytes},
                         {"steps_per_second", seconds > 0 ? rounded(steps / seconds) : 0},
                         {"without_rows", steps > 0 ? rounded(idle / steps) : 0},
                         {"computing", rounded(part.computing)},
                         {"exchanging", rounded(part.exchanging)},
                         {"waiting", rounded(part.waiting)},
                         {"busy", rounded(part.busy)},
                         {"waits_for", laggard.rank >= 0 && laggard.rank != rank.rank && part.waiting >= kWaits &&
                                               part.waiting - laggard.own_wait >= kLess
                                           ? json::value(laggard.rank)
                                           : json::value()}});
      }
    replica["ranks"] = std::move(ranks);
    replicas.push_back(std::move(replica));
  }
  return http::format_sse(json_text({{"t", now_}, {"phase", cluster_.phase}, {"replicas", std::move(replicas)}}),
                          "state");
}

std::string ClusterHistory::experts_event() const {
  json::array ranks, rows;
  int64_t num_experts = 0;
  for (size_t idx = 0; idx < members_.size(); idx++) {
    if (!members_[idx].is_told || cluster_.members[idx].state != "up") continue;
    for (const RankView& rank : members_[idx].looks.back().server.ranks) {
      if (rank.experts_held == 0 || rank.moe_layers == 0) continue;
      num_experts = std::max(num_experts, rank.num_experts);
      const RankView* const before = members_[idx].before(rank);
      json::array of_layers;
      for (size_t layer = 0; layer < rank.layer_rows.size(); layer++) {
        const bool is_known = before && layer < before->layer_rows.size();
        of_layers.push_back(is_known ? grown(before->layer_rows[layer], rank.layer_rows[layer]) : 0);
      }
      ranks.push_back({{"rank", rank.rank},
                       {"replica", idx},
                       {"held", static_cast<double>(rank.experts_held) / static_cast<double>(rank.moe_layers)}});
      rows.push_back(std::move(of_layers));
    }
  }
  return http::format_sse(json_text({{"experts", num_experts}, {"ranks", std::move(ranks)}, {"rows", std::move(rows)}}),
                          "experts");
}

}  // namespace cachalot::page
