#include "simulation/cluster.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <utility>

#include "base/text.h"
#include "simulation/rank.h"
#include "simulation/router.h"

namespace cachalot::simulation {

namespace {

constexpr int kFirstHttpPort = 7555;
// After the last fault: so long until all replicas take requests again, and all clients have their answers.
constexpr Duration kRecovery = 180s;
// So long after a fault a request may still fail by it, where nothing goes on with answers: until its replica is known
// as lost, loaded anew, and no longer kept out for the errors that it gave. Else only where several faults come so
// close to each other, or no replica is up.
constexpr Duration kAftermath = 100s, kShortAftermath = 15s;
constexpr Duration kLossIsKnown = 4500ms, kSilenceIsKnown = 6s;

double to_seconds(Duration duration) {
  return std::chrono::duration<double>(duration).count();
}

}  // namespace

std::string Fault::text() const {
  const double when = to_seconds(at), how_long = to_seconds(length);
  switch (kind) {
    case Kind::kKill:
      return fmt::format("{:.4f} s: rank {} is killed", when, rank);
    case Kind::kStop:
      return fmt::format("{:.4f} s: rank {} is stopped for {:.2f} s", when, rank, how_long);
    case Kind::kHostDies:
      return fmt::format("{:.4f} s: host {} is gone for {:.2f} s", when, host, how_long);
    case Kind::kHostIsCut:
      return fmt::format("{:.4f} s: host {} is cut off for {:.2f} s", when, host, how_long);
    case Kind::kOneWayIsCut:
      return fmt::format("{:.4f} s: nothing gets from host {} to host {} for {:.2f} s", when, host, other_host,
                         how_long);
    case Kind::kConnection:
      return fmt::format("{:.4f} s: a connection breaks", when);
    case Kind::kTerminate:
      return fmt::format("{:.4f} s: the replica of rank {} is told to end", when, rank);
  }
  return "?";
}

std::string Scenario::text() const {
  std::string all = fmt::format(
      "seed {}: {} replicas of {} ranks on {} hosts{}; {} steps a round, {} sequences, {} rows, {} blocks of {}; {} "
      "requests in {} s\n",
      seed, layout.dp_size, layout.tp_size, layout.num_hosts, layout.spans_replicas() ? ", in step" : "",
      scheduler.num_scheduler_steps, scheduler.max_num_seqs, scheduler.max_num_batched_tokens,
      scheduler.cache.num_blocks, scheduler.cache.block_size, requests.size(), to_seconds(length));
  for (const Fault& fault : faults) all += "  " + fault.text() + "\n";
  return all;
}

void Tally::operator+=(const Tally& other) {
  requests += other.requests, answered += other.answered, failed += other.failed, left += other.left;
  rounds += other.rounds, steps += other.steps, losses += other.losses;
  starts += other.starts, preemptions += other.preemptions, prefix_hits += other.prefix_hits;
  takeovers += other.takeovers, switches += other.switches, events += other.events, seconds += other.seconds;
}

std::string Tally::text() const {
  return fmt::format(
      "{:.0f} simulated seconds, {} events: {} requests ({} answered, {} failed by a fault, {} whose client left), {} "
      "rounds, {} steps of ranks, {} losses heard of, {} ranks loaded, {} preemptions, {} tokens from the prefix "
      "cache, {} takeovers, {} switches of experts",
      seconds, events, requests, answered, failed, left, rounds, steps, losses, starts, preemptions, prefix_hits,
      takeovers, switches);
}

Scenario make_scenario(uint64_t seed, const Scale& scale) {
  Random random(seed);
  Scenario scenario{.seed = seed, .length = scale.length};
  Layout& layout = scenario.layout;
  do {
    layout.dp_size = random.between(1, scale.max_ranks > 8 ? 8 : 4);
    layout.tp_size = random.between(1, 4);
  } while (layout.dp_size * layout.tp_size > scale.max_ranks);
  layout.expert_parallel = !random.one_in(4);
  layout.num_hosts = random.between(1, std::min(layout.dp_size, 4));
  const int block_size = 4 << random.below(3);
  scenario.scheduler = {
      .max_num_batched_tokens = random.between(8, 64),
      .max_num_seqs = random.between(1, 8),
      .max_model_len = 120,
      .num_scheduler_steps = random.one_in(2) ? 1 : random.between(2, 8),
      .policy = SchedulingPolicy::kFcfs,
      .cache = {.num_blocks = 120 / block_size + random.below(random.one_in(2) ? 4 : 120 / block_size),
                .block_size = block_size,
                .enabled = !random.one_in(4),
                .hash_key = {}}};
  if (random.one_in(4)) scenario.queue.max_requests = random.between(2, 8);
  scenario.keeps_answers = !random.one_in(6);
  scenario.has_odd_replica = !layout.spans_replicas() && layout.dp_size > 1 && random.one_in(3);

  const bool comes_in_bursts = random.one_in(3);
  std::vector<std::vector<TokenId>> beginnings(3);
  for (auto& beginning : beginnings)
    for (int idx = random.between(1, 40); idx > 0; idx--) beginning.push_back(random.below(50));
  for (int id = 0; id < scale.num_requests; id++) {
    Asked asked{.id = id, .arrival = random.between(Duration(2s), scale.length)};
    if (comes_in_bursts) asked.arrival -= asked.arrival % 5s;
    asked.prompt = beginnings[static_cast<size_t>(random.below(3))];
    for (int idx = random.between(0, 20); idx > 0; idx--) asked.prompt.push_back(random.below(50));
    asked.max_tokens = random.between(1, 40);
    asked.is_streamed = !random.one_in(4);
    if (random.one_in(12)) asked.leaves = random.between(Duration(1ms), Duration(1500ms));
    scenario.requests.push_back(std::move(asked));
  }
  std::ranges::sort(scenario.requests, {}, &Asked::arrival);
  for (int idx = random.below(scale.num_faults + 1); idx > 0; idx--) {
    Fault fault{.kind = static_cast<Fault::Kind>(random.below(7)),
                .at = random.between(Duration(100ms), scale.length),
                .length = random.one_in(3) ? random.between(Duration(1s), Duration(15s))
                                           : random.between(Duration(10ms), Duration(1500ms)),
                .rank = random.below(layout.dp_size * layout.tp_size),
                .host = random.between(1, layout.num_hosts)};
    fault.other_host = random.below(layout.num_hosts + 1);
    // Several at once, now and then.
    if (!scenario.faults.empty() && random.one_in(4))
      fault.at = scenario.faults.back().at + random.between(Duration(0s), Duration(2s));
    scenario.faults.push_back(fault);
  }
  std::ranges::sort(scenario.faults, {}, &Fault::at);
  return scenario;
}

namespace {

// What a client makes of what it hears; held to what it may hear.
class Asker : public Client {
 public:
  Asker(const Asked& asked, const FakeModel& model) : asked_(asked), model_(model) {}

  void hear_head(int status) override {
    check(!status_, "gets a second head");
    status_ = status;
  }
  void hear(const std::string& bytes) override {
    check(status_ && !is_over_, "hears something before its head or behind the end");
    if (*status_ != 200 || !asked_.is_streamed) {
      body_ += bytes;
      return;
    }
    const auto events = parser_.add(bytes);
    check(events.has_value(), "gets no events");
    for (const http::SseEvent& event : *events) {
      check(!is_complete_, "hears more behind its last event");
      if (event.data == "[DONE]")
        is_complete_ = true;
      else if (event.data.starts_with("{"))
        has_failed_ = true;
      else if (!event.data.empty())
        take_all(event.data);
    }
  }
  void hear_end(bool is_whole) override {
    check(!is_over_, "ends twice");
    is_over_ = true;
    if (*status_ != 200) {
      static const std::set<int> kKnown{429, 502, 503, 504};
      check(kKnown.contains(*status_), fmt::format("is answered with {}", *status_));
      has_failed_ = true;
    } else if (!asked_.is_streamed) {
      is_complete_ = body_.ends_with("[DONE]");
      for (size_t at = 0; is_complete_ && body_[at] != '[';) {
        const size_t end = body_.find(' ', at);
        take_all((at == 0 ? "@" : "") + body_.substr(at, end - at));
        at = end + 1;
      }
    }
    check(is_complete_ || has_failed_ || !is_whole, "looks complete and is not");
    check(!is_complete_ || received_.size() == expected_.size(),
          fmt::format("ends after {} tokens of {}", received_.size(), expected_.size()));
    if (!is_complete_) has_failed_ = true;
  }
  void leave() { is_over_ = has_left_ = true; }

  const Asked& asked() const { return asked_; }
  bool is_over() const { return is_over_; }
  bool has_left() const { return has_left_; }
  bool is_answered() const { return is_complete_; }
  int status() const { return status_.value_or(0); }
  std::shared_ptr<Router::Call> call;
  Time began, ended;
  bool saw_nobody_up = false;

 private:
  // "@17", the seed, from which all else follows; or tokens.
  void take_all(std::string_view text) {
    if (text.starts_with('@')) {
      check(expected_.empty(), "hears a second beginning");
      SamplingParams sampling{.max_tokens = asked_.max_tokens, .stop_token_ids = {0}};
      sampling.seed = parse_number<uint64_t>(text.substr(1)).value_or(0);
      expected_ = model_.answer(asked_.prompt, static_cast<int>(asked_.prompt.size()), sampling);
      return;
    }
    for (size_t comma = 0; comma < text.npos; text.remove_prefix(std::min(comma, text.size() - 1) + 1)) {
      comma = text.find(',');
      take(parse_number<TokenId>(text.substr(0, comma)).value_or(-1));
    }
  }
  void take(TokenId token) {
    const size_t place = received_.size();
    check(!has_failed_, "hears a token behind an error");
    check(place < expected_.size() && expected_[place] == token,
          fmt::format("hears {} as token {}, for {}", token, place,
                      place < expected_.size() ? fmt::to_string(expected_[place]) : "the end"));
    received_.push_back(token);
  }
  void check(bool holds, const std::string& what) const {
    if (!holds) throw Violation(fmt::format("request {} {}", asked_.id, what));
  }

  const Asked asked_;
  const FakeModel& model_;
  std::vector<TokenId> expected_, received_;
  http::SseParser parser_;
  std::optional<int> status_;
  std::string body_;
  bool is_over_ = false, is_complete_ = false, has_failed_ = false, has_left_ = false;
};

class Cluster : public Ranks {
 public:
  Cluster(const Scenario& scenario, bool keep_history) : scenario_(scenario), world_(scenario.seed) {
    if (keep_history) world_.keep_history();
    model_.vocab_size = 50;
    RouterOptions options;
    options.answer_timeout = std::chrono::seconds(300);  // beyond kRecovery: nobody is to need it
    if (!scenario.keeps_answers) options.takeover_memory = 0;
    std::vector<Router::Place> places;
    for (int replica = 0; replica < layout().dp_size; replica++) {
      places.push_back({layout().host_of(replica), http_port(replica)});
      options.server_urls.push_back(fmt::format("http://host{}:{}", places.back().host, places.back().port));
      servers_.emplace_back();
      start_replica(replica);
    }
    router_ = std::make_unique<Router>(world_, world_.start_process(0, "router"), options, std::move(places));
    for (const Fault& fault : scenario.faults) world_.at(start_ + fault.at, nullptr, [this, &fault] { happen(fault); });
  }

  ~Cluster() override {
    world_.forget_all();
    for (const auto& asker : askers_) asker->call.reset();
  }

  World& world() override { return world_; }
  const Scenario& scenario() const override { return scenario_; }
  const FakeModel& model() const override { return model_; }
  Tally& tally() override { return tally_; }
  Rank* rank_of(int process_id) override {
    const auto found = alive_.find(process_id);
    return found == alive_.end() ? nullptr : found->second;
  }
  const Asked& request(int id) const override { return by_id_.at(id)->asked(); }
  int http_port(int replica) const override { return kFirstHttpPort + replica; }

  void run() {
    for (const Asked& asked : scenario_.requests) ask_at(start_ + asked.arrival, asked);
    world_.run_until(start_ + scenario_.length);
    Time last = start_ + scenario_.length;
    for (const Fault& fault : scenario_.faults) last = std::max(last, start_ + fault.at + fault.length);
    world_.run_until(last);
    recover(last);
    probe();
    check_quiet();
    add_up();
  }
  const Tally& result() const { return tally_; }

 private:
  struct Server {
    std::vector<Rank*> ranks;  // the leader first
    bool is_down = true;
  };
  const Layout& layout() const { return scenario_.layout; }

  // --- Processes: what `up` does.

  void start_replica(int replica) {
    Server& server = servers_[static_cast<size_t>(replica)];
    if (!server.is_down || dead_hosts_.contains(layout().host_of(replica))) return;
    server.is_down = false;
    server.ranks.clear();
    num_starts_++;
    for (int tp_rank = 0; tp_rank < layout().tp_size; tp_rank++) {
      const ProcessPtr process = world_.start_process(layout().host_of(replica),
                                                      fmt::format("rank {}.{} ({})", replica, tp_rank, num_starts_));
      ranks_.push_back(std::make_unique<Rank>(*this, replica, tp_rank, process));
      Rank& rank = *ranks_.back();
      server.ranks.push_back(&rank);
      alive_[process->id] = &rank;
      process->deaths.push_back([this, &rank](bool is_clean) { see_end(rank, is_clean); });
    }
  }

  void see_end(Rank& rank, bool is_clean) {
    alive_.erase(rank.process()->id);
    if (is_clean)
      for (const auto& [id, other] : alive_) other->see_death(rank);
    Server& server = servers_[static_cast<size_t>(rank.replica())];
    if (!rank.is_leader()) return server.ranks[0]->see_childs_end();
    // Its other ranks end with it.
    for (Rank* sibling : server.ranks) world_.after(1ms, nullptr, [this, sibling] { world_.kill(sibling->process()); });
    server.is_down = true;
    world_.after(world_.random().between(Duration(100ms), Duration(1000ms)), nullptr,
                 [this, replica = rank.replica()] { start_replica(replica); });
  }

  // --- Faults.

  Rank& rank_at(int number) {
    return *servers_[static_cast<size_t>(number / layout().tp_size)]
                .ranks[static_cast<size_t>(number % layout().tp_size)];
  }

  void happen(const Fault& fault) {
    world_.note("FAULT {}", fault.text());
    const auto later = [&](auto body) { world_.after(fault.length, nullptr, body); };
    const auto cut = [&](int from, int to) {
      world_.cut(from, to);
      later([this, from, to] { world_.mend(from, to); });
    };
    const auto cut_off = [&](int host) {
      for (int other = 0; other <= layout().num_hosts; other++)
        if (other != host) cut(host, other), cut(other, host);
    };
    switch (fault.kind) {
      case Fault::Kind::kKill:
        return kill(fault);
      case Fault::Kind::kStop: {
        const ProcessPtr process = rank_at(fault.rank).process();
        if (process->is_stopped) return;
        if (fault.length > kSilenceIsKnown) expect_loss(fault, kSilenceIsKnown);
        world_.stop(process);
        return later([this, process] { world_.wake(process); });
      }
      case Fault::Kind::kHostDies:
        dead_hosts_.insert(fault.host);
        cut_off(fault.host);
        for (const auto& rank : ranks_)
          if (rank->process()->host == fault.host) world_.kill(rank->process(), false);
        return later([this, host = fault.host] {
          dead_hosts_.erase(dead_hosts_.find(host));
          for (int replica = 0; replica < layout().dp_size; replica++)
            if (layout().host_of(replica) == host) start_replica(replica);
        });
      case Fault::Kind::kHostIsCut:
        return cut_off(fault.host);
      case Fault::Kind::kOneWayIsCut:
        if (fault.host != fault.other_host) cut(fault.host, fault.other_host);
        return;
      case Fault::Kind::kConnection:
        return world_.break_a_connection();
      case Fault::Kind::kTerminate: {
        Rank& rank = rank_at(fault.rank);
        Rank& leader = *servers_[static_cast<size_t>(rank.replica())].ranks[0];
        if (leader.process()->is_alive && !leader.process()->is_stopped) leader.terminate();
        return;
      }
    }
  }

  void kill(const Fault& fault) {
    expect_loss(fault, kLossIsKnown);
    world_.kill(rank_at(fault.rank).process());
  }

  // The others of its group know soon, if nothing else is wrong, and end.
  void expect_loss(const Fault& fault, Duration soon) {
    Rank& rank = rank_at(fault.rank);
    const bool is_alone = std::ranges::none_of(scenario_.faults, [&](const Fault& other) {
      return &other != &fault && other.at < fault.at + soon && other.at + other.length > fault.at - 2s;
    });
    if (!is_alone || !rank.process()->is_alive || !rank.is_ready()) return;
    for (const auto& [id, other] : alive_) {
      const bool is_member = other->replica() == rank.replica() || layout().spans_replicas();
      if (!is_member || !other->is_ready() || other == &rank) continue;
      world_.after(soon, nullptr, [process = other->process()] {
        if (process->is_alive) throw Violation(process->name + " lives on without a rank that is lost");
      });
    }
  }

  // --- Clients.

  void ask_at(Time time, const Asked& asked) {
    askers_.push_back(std::make_unique<Asker>(asked, model_));
    Asker& asker = *askers_.back();
    by_id_[asked.id] = &asker;
    world_.at(time, nullptr, [this, &asker] {
      const Asked& request = asker.asked();
      world_.note("request {} of {} tokens comes, for {}", request.id, request.prompt.size(), request.max_tokens);
      std::string text;
      for (const TokenId token : request.prompt) text += fmt::format("word{} ", token);
      asker.began = world_.now();
      asker.call = router_->ask(asker, request.id, fmt::format(R"({{"prompt": "{}", "id": {}}})", text, request.id));
      watch(asker);
      if (!request.leaves) return;
      world_.after(*request.leaves, nullptr, [&asker] {
        if (asker.is_over()) return;
        asker.call->leave();
        asker.leave();
      });
    });
  }

  // That it ends, and with an error only where there is a reason.
  void watch(Asker& asker) {
    asker.saw_nobody_up |= !router_->any_up();
    if (!asker.is_over()) return world_.after(100ms, nullptr, [this, &asker] { watch(asker); });
    asker.ended = world_.now();
    world_.note("request {} has ended: {}", asker.asked().id,
                asker.has_left()      ? "its client left"
                : asker.is_answered() ? "answered"
                                      : fmt::format("failed ({})", asker.status()));
    if (asker.is_answered() || asker.has_left()) return;
    const Duration aftermath = scenario_.keeps_answers ? kShortAftermath : kAftermath;
    const auto num_faults = std::ranges::count_if(scenario_.faults, [&](const Fault& fault) {
      return start_ + fault.at <= asker.ended && asker.began <= start_ + fault.at + fault.length + aftermath;
    });
    // Where replicas step together, or are on one host, a fault may leave nobody.
    const bool have_others = scenario_.keeps_answers && layout().num_hosts > 1 && !layout().spans_replicas();
    const bool has_reason = num_faults > (have_others ? 1 : 0) || asker.saw_nobody_up;
    const bool is_starting = asker.began < start_ + 6s;
    const bool is_full = asker.status() == 429 && scenario_.queue.max_requests > 0;
    if (!has_reason && !is_starting && !is_full)
      throw Violation(fmt::format("request {} fails ({}) without a fault", asker.asked().id, asker.status()));
  }

  // --- The end.

  bool is_strong() {
    const auto status = router_->status();
    return std::ranges::all_of(status, [](const auto& replica) { return replica.health.is_up(); }) &&
           static_cast<int>(alive_.size()) == layout().dp_size * layout().tp_size &&
           std::ranges::all_of(alive_, [](const auto& entry) { return entry.second->is_ready(); });
  }

  void recover(Time last) {
    const auto unanswered = [this] {
      return std::ranges::find_if(askers_, [](const auto& asker) { return !asker->is_over(); });
    };
    while (!is_strong() || unanswered() != askers_.end()) {
      if (world_.now() > last + kRecovery) {
        if (!is_strong()) throw Violation("not at full strength, long after the last fault: " + weakness());
        throw Violation(fmt::format("request {} never ends", (*unanswered())->asked().id));
      }
      world_.run_until(world_.now() + 1s);
    }
  }

  std::string weakness() {
    std::string text;
    for (const router::ReplicaStatus& replica : router_->status())
      if (!replica.health.is_up()) text += fmt::format("{} ({}) ", replica.url, replica.health.reason());
    return text + fmt::format("{} of {} ranks live", alive_.size(), layout().dp_size * layout().tp_size);
  }

  // At full strength whoever asks is answered.
  void probe() {
    world_.run_until(world_.now() + kAftermath);
    const size_t first = askers_.size();
    for (int idx = 0; idx < 2 * layout().dp_size; idx++) {
      Asked asked{.id = by_id_.empty() ? 0 : by_id_.rbegin()->first + 1, .prompt = {1, 2, 3, idx}, .max_tokens = 8};
      ask_at(world_.now() + idx * 500ms, asked);
    }
    world_.run_until(world_.now() + 30s);
    for (size_t idx = first; idx < askers_.size(); idx++)
      if (!askers_[idx]->is_answered())
        throw Violation(fmt::format("request {} is not answered ({}) at full strength", askers_[idx]->asked().id,
                                    askers_[idx]->status()));
  }

  void check_quiet() {
    for (const auto& [id, rank] : alive_) rank->check_quiet();
    for (const router::ReplicaStatus& replica : router_->status())
      if (replica.num_in_flight != 0)
        throw Violation(fmt::format("the router counts {} requests at {}", replica.num_in_flight, replica.url));
    if (router_->num_kept_bytes() > 0)
      throw Violation(fmt::format("the router keeps {} bytes of answers that are over", router_->num_kept_bytes()));
  }

  void add_up() {
    tally_.requests = askers_.size();
    for (const auto& asker : askers_)
      (asker->has_left() ? tally_.left : asker->is_answered() ? tally_.answered : tally_.failed)++;
    for (const auto& rank : ranks_) {
      if (!rank->is_leader()) continue;
      tally_.preemptions += rank->stats().num_preemptions;
      tally_.prefix_hits += rank->stats().prefix_hit_tokens;
    }
    tally_.takeovers = router_->num_takeovers();
    tally_.events = world_.num_events();
    tally_.seconds = to_seconds(world_.now() - start_);
  }

  const Scenario& scenario_;
  World world_;
  const Time start_ = world_.now();
  FakeModel model_;
  Tally tally_;
  std::vector<std::unique_ptr<Asker>> askers_;
  std::map<int, Asker*> by_id_;
  std::vector<std::unique_ptr<Rank>> ranks_;  // all that ever were
  std::map<int, Rank*> alive_;                // by process
  std::vector<Server> servers_;
  std::multiset<int> dead_hosts_;
  int num_starts_ = 0;
  std::unique_ptr<Router> router_;
};

}  // namespace

Outcome simulate(const Scenario& scenario, bool keep_history) {
  Outcome outcome;
  Cluster cluster(scenario, keep_history);
  try {
    cluster.run();
  } catch (const std::exception& violation) {  // a Violation, or what a bug throws
    outcome.violation = violation.what();
    cluster.world().note("VIOLATION {}", violation.what());
  }
  outcome.tally = cluster.result();
  outcome.history = cluster.world().history();
  return outcome;
}

Scenario shortest(Scenario scenario) {
  const auto still_fails = [](const Scenario& smaller) { return simulate(smaller, false).violation.has_value(); };
  for (size_t idx = scenario.faults.size(); idx-- > 0;) {
    Scenario smaller = scenario;
    smaller.faults.erase(smaller.faults.begin() + static_cast<std::ptrdiff_t>(idx));
    if (still_fails(smaller)) scenario = std::move(smaller);
  }
  for (size_t step = scenario.requests.size() / 2; step > 0; step /= 2) {
    for (size_t first = 0; first + step <= scenario.requests.size();) {
      Scenario smaller = scenario;
      const auto begin = smaller.requests.begin() + static_cast<std::ptrdiff_t>(first);
      smaller.requests.erase(begin, begin + static_cast<std::ptrdiff_t>(step));
      if (still_fails(smaller))
        scenario = std::move(smaller);
      else
        first += step;
    }
  }
  return scenario;
}

}  // namespace cachalot::simulation
