#include "simulation/rank.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/text.h"
#include "comm/membership/hub.h"
#include "comm/membership/spoke.h"
#include "openai/answer/answer_log.h"
#include "scheduler/integrity_test_util.h"

namespace cachalot {

Status check_integrity(const Leader& leader) {
  RETURN_IF_ERROR(check_integrity(leader.scheduler_));
  const ReplicaStats stats = leader.stats();
  if (std::ssize(leader.streams_) != stats.num_running + stats.num_waiting)
    return make_error(ErrorCode::kInternal, "{} streams of {} requests", leader.streams_.size(),
                      stats.num_running + stats.num_waiting);
  return {};
}

}  // namespace cachalot

namespace cachalot::simulation {

namespace {

constexpr uint16_t kMeetingPort = 29'550;
constexpr std::chrono::milliseconds kFailureTimeout{1000};
constexpr Duration kMeshDeadline = 20s;
constexpr Duration kGoodbye = 1500ms;
constexpr Duration kDrain = 5s;

std::span<const std::byte> bytes_of(const std::string& text) {
  return std::as_bytes(std::span(text));
}

template <class Message>
std::string to_bytes(const Message& message) {
  return {reinterpret_cast<const char*>(&message), sizeof message};
}

}  // namespace

// What the API does of a leader's process: requests in, events out. A message is a word: 'H' and the status of a
// head, 'D' and a piece of a body, 'E' for its end.
class Api {
 public:
  explicit Api(Rank& rank) : rank_(rank) {
    rank_.world_.listen(rank_.process_, rank_.ranks_.http_port(rank_.replica_), [this](StreamPtr stream) {
      stream->on_message = [this, stream](const std::string& request) { take(stream, request); };
      stream->on_closed = [](const std::string&) {};
    });
  }

  size_t num_calls() const { return calls_.size(); }

 private:
  struct Call {
    StreamPtr stream;
    bool is_streamed = true, has_head = false, has_log = false, has_begun = false;
    uint64_t seed = 0;
    std::optional<TokenId> half;  // that is told with the next one, as half a character is
    std::string body;             // of a whole answer
  };

  // "POST 7", and behind that "@", if a log is wanted, with what there is of it.
  void take(const StreamPtr& stream, std::string_view request) {
    if (request == "GET /load") return tell_load(stream);
    request.remove_prefix(std::string_view("POST ").size());
    const size_t end = std::min(request.find('@'), request.size());
    const Asked& asked = rank_.ranks_.request(parse_number<int>(request.substr(0, end)).value_or(-1));
    const auto refuse = [&](int status) {
      stream->send(fmt::format("H{} json", status));
      stream->send("D{\"error\": {\"message\": \"refused\"}}");
      stream->send("E");
    };
    Call call{
        .stream = stream, .is_streamed = asked.is_streamed, .has_log = end < request.size(), .half = {}, .body = {}};
    std::optional<openai::AnswerLog> log;
    if (end + 1 < request.size()) {
      auto read = openai::parse_answer_log(request.substr(end + 1));
      if (!read) throw Violation("a log is none: " + read.error().message);
      log = std::move(*read);
    }
    if (!takes_requests()) return refuse(503);
    Request made{.id = next_id_++, .tokens = asked.prompt};
    made.num_prompt_tokens = static_cast<int>(asked.prompt.size());
    made.sampling.max_tokens = asked.max_tokens;
    made.sampling.stop_token_ids = {0};
    if (log && log->start.fingerprint != fingerprint())
      throw Violation(fmt::format("{} is to go on with an answer of other bits", rank_.process_->name));
    made.sampling.seed = (log ? log->start.seed : rank_.world_.random().next()) ^ oddness();
    bool is_over = false;
    for (const openai::AnswerLog::Entry& entry : log ? log->entries : std::vector<openai::AnswerLog::Entry>()) {
      if (is_over) throw Violation(fmt::format("the log of request {} goes on behind its end", asked.id));
      for (const SampledToken& token : entry.output.tokens) made.tokens.push_back(token.token);
      is_over = entry.output.finish != FinishReason::kNone;
      say(call, entry.output);
    }
    call.seed = made.sampling.seed;  // which is told first
    if (!call.is_streamed) call.body.insert(0, fmt::format("{} ", call.seed));
    made.parent = made.id;
    made.arrival_ns = rank_.world_.now().time_since_epoch().count();
    if (is_over) {
      begin(call, {});
      return end_logged(call, "", std::string(openai::answer_log::kEnd));
    }
    if (!rank_.leader_->check(made)) return refuse(400);
    const Scenario& scenario = rank_.ranks_.scenario();
    if (!check_queue(scenario.queue, scenario.scheduler.max_num_seqs, rank_.leader_->stats(), rank_.mail_,
                     made.num_prompt_tokens))
      return refuse(429);
    const QueueLimits& limits = scenario.queue;
    const int num_waiting = rank_.mail_.with(rank_.leader_->stats()).num_waiting;
    if (limits.max_requests > 0 && num_waiting > limits.max_requests + scenario.scheduler.max_num_seqs)
      throw Violation(fmt::format("{} requests wait at {}", num_waiting, rank_.process_->name));
    const RequestId id = made.id;
    const std::string record =
        openai::start_record({.seed = made.sampling.seed ^ oddness(), .fingerprint = fingerprint(), .stored = {}});
    if (call.has_log) begin(call, log ? std::string(openai::answer_log::kPass) : beginning(call) + record);
    calls_[id] = std::move(call);
    stream->on_closed = [this, id](const std::string&) {
      if (calls_.erase(id) == 0) return;
      rank_.mail_.aborts.push_back(id);
      rank_.wake();
    };
    say_that_it_waits(id);
    rank_.mail_.num_tokens += made.num_prompt_tokens;
    rank_.mail_.submissions.push_back({std::move(made), [this](const RequestOutput& output) { tell(output); }});
    rank_.wake();
  }

  // One replica may give other bits than all others, and says so.
  uint64_t oddness() const { return rank_.ranks_.scenario().has_odd_replica && rank_.replica_ == 0 ? 1 : 0; }
  std::string fingerprint() const { return oddness() ? "odd" : "toy"; }
  bool takes_requests() const { return rank_.is_ready() && !rank_.is_draining_; }

  void tell_load(const StreamPtr& stream) const {
    stream->send(takes_requests() ? "H200 json" : "H503 json");
    if (takes_requests()) {
      const ReplicaStats stats = rank_.mail_.with(rank_.leader_->stats());
      stream->send(fmt::format(R"(D{{"running": {}, "waiting": {}, "pending_tokens": {}, "kv_usage": {}, )"
                               R"("instance": "{}", "fingerprint": "{}"}})",
                               stats.num_running, stats.num_waiting, stats.num_pending_tokens, stats.kv_usage,
                               rank_.process_->id, fingerprint()));
    }
    stream->send("E");
  }

  void say_that_it_waits(RequestId id) {
    rank_.world_.after(1s, rank_.process_, [this, id] {
      const auto found = calls_.find(id);
      if (found == calls_.end() || !(found->second.is_streamed || found->second.has_log)) return;
      send_piece(found->second, found->second.has_log ? std::string(openai::answer_log::kPass) : ": waiting\n\n");
      say_that_it_waits(id);
    });
  }

  // In two pieces now and then, as networks do, of which the second may come late, or with a host that goes never.
  void send_piece(Call& call, const std::string& piece) {
    if (!std::exchange(call.has_head, true)) call.stream->send(call.is_streamed ? "H200 events" : "H200 json");
    Random& random = rank_.world_.random();
    const auto cut = random.one_in(4) ? static_cast<size_t>(random.below(static_cast<int>(piece.size()))) : 0;
    if (cut > 0) call.stream->send("D" + piece.substr(0, cut));
    call.stream->send("D" + piece.substr(cut), cut > 0 ? random.between(0ms, 30ms) : 0ms);
  }

  void begin(Call& call, const std::string& piece) {
    call.has_head = true;
    call.stream->send(fmt::format("H200 {} {} {}",
                                  call.is_streamed ? openai::answer_log::kEvents : openai::answer_log::kWhole,
                                  rank_.process_->id, fingerprint()));
    if (!piece.empty()) send_piece(call, piece);
  }

  static std::string beginning(const Call& call) {
    return call.is_streamed ? fmt::format("data: @{}\n\n", call.seed) : "";
  }
  // What is told of some tokens.
  static std::string say(Call& call, const RequestOutput& output) {
    std::string told;
    const auto tell = [&](const std::string& tokens) {
      if (call.is_streamed)
        told += fmt::format("data: {}\n\n", tokens);
      else
        call.body += tokens + ' ';
    };
    for (const SampledToken& sampled : output.tokens) {
      if (const auto half = std::exchange(call.half, std::nullopt))
        tell(fmt::format("{},{}", *half, sampled.token));
      else if (sampled.token >= kFirstHalf)
        call.half = sampled.token;
      else
        tell(fmt::to_string(sampled.token));
    }
    const bool is_whole = output.finish == FinishReason::kStop || output.finish == FinishReason::kLength;
    if (!is_whole) return told;
    if (call.half) tell(fmt::to_string(*std::exchange(call.half, std::nullopt)));
    if (call.is_streamed) told += "data: [DONE]\n\n";
    return told;
  }
  static std::string whole_text(const Call& call) {
    return openai::format_whole({.status = 200, .headers = {}, .body = call.body + "[DONE]"});
  }
  void end_logged(Call& call, const std::string& told, const std::string& records) {
    send_piece(call, told + records);
    call.stream->send("E");
  }

  void tell(const RequestOutput& output) {
    const auto found = calls_.find(output.id);
    if (found == calls_.end()) return;
    Call& call = found->second;
    const std::string told = say(call, output);
    const bool is_over = output.finish != FinishReason::kNone;
    const bool is_whole = output.finish == FinishReason::kStop || output.finish == FinishReason::kLength;
    const std::string error = "{\"error\": {\"message\": \"the engine has failed\"}}";
    if (call.has_log) {
      const std::string record = openai::output_record(0, output, false);
      if (!is_over) return send_piece(call, told + record);
      if (is_whole)
        end_logged(call, call.is_streamed ? told : whole_text(call), record + std::string(openai::answer_log::kEnd));
      else
        end_logged(call, "data: " + error + "\n\n", std::string(openai::answer_log::kGivenUp));
    } else {
      if (call.is_streamed && !told.empty())
        send_piece(call, (std::exchange(call.has_begun, true) ? "" : beginning(call)) + told);
      if (!is_over) return;
      if (is_whole && !call.is_streamed) {
        send_piece(call, call.body + "[DONE]");
      } else if (!is_whole && call.has_head) {
        send_piece(call, "data: " + error + "\n\n");
      } else if (!is_whole) {
        call.stream->send("H503 json");
        call.stream->send("D" + error);
      }
      call.stream->send("E");
    }
    calls_.erase(found);
  }

  static constexpr TokenId kFirstHalf = 40;  // of the toy's vocabulary: halves of characters

  Rank& rank_;
  RequestId next_id_ = 1;
  std::map<RequestId, Call> calls_;
};

// --- Membership.

Rank::Rank(Ranks& ranks, int replica, int tp_rank, ProcessPtr process)
    : ranks_(ranks),
      world_(ranks.world()),
      layout_(ranks.scenario().layout),
      replica_(replica),
      tp_rank_(tp_rank),
      group_rank_((layout_.spans_replicas() ? replica * layout_.tp_size : 0) + tp_rank),
      process_(std::move(process)),
      network_(world_, process_),
      join_options_{.rank = group_rank_,
                    .size = layout_.group_size(),
                    .host = fmt::format("host {}", layout_.host_of(layout_.spans_replicas() ? 0 : replica)),
                    .port = static_cast<uint16_t>(kMeetingPort + (layout_.spans_replicas() ? 0 : replica)),
                    .program_version = "0",
                    .join_timeout = std::chrono::milliseconds(60'000),
                    .failure_timeout = kFailureTimeout},
      state_(join_options_),
      limits_{.max_num_seqs = ranks.scenario().scheduler.max_num_seqs,
              .max_rows = ranks.scenario().scheduler.max_num_batched_tokens,
              .max_steps = ranks.scenario().scheduler.num_scheduler_steps,
              .max_model_len = ranks.scenario().scheduler.max_model_len,
              .block_size = ranks.scenario().scheduler.cache.block_size,
              .num_blocks = ranks.scenario().scheduler.cache.num_blocks,
              .vocab_size = ranks.model().vocab_size},
      agreements_(limits_, join_options_.epoch) {
  const PrefixCacheOptions& cache = ranks.scenario().scheduler.cache;
  slots_.resize(static_cast<size_t>(cache.num_blocks) * static_cast<size_t>(cache.block_size));
  if (is_leader()) {
    metrics_.emplace(MetricsOptions{.model_name = "toy", .engine = replica});
    leader_.emplace(ranks.scenario().scheduler, *metrics_);
    api_ = std::make_unique<Api>(*this);
  }
  world_.after(1ms, process_, [this] { join(); });
}

Rank::~Rank() = default;

void Rank::join() {
  control::Hello own{.introduction = {.program_version = "0",
                                      .rank = group_rank_,
                                      .size = join_options_.size,
                                      .host = fmt::format("host {}", process_->host),
                                      .label = {},
                                      .pid = process_->id},
                     .node = {.boot_id = fmt::format("host {}", process_->host), .net_namespace = 1},
                     .shm_socket = fmt::format("{}", process_->id)};
  if (join_options_.size == 1) {
    state_.set_formed({.members = {control::member_of(own, "")}});
    state_.set_all_ready();
  } else if (group_rank_ == 0) {
    auto hub = std::make_unique<control::Hub>(network_, join_options_, std::move(own), state_);
    if (const Status listens = hub->listen(); !listens) return exit(listens.error().message);
    role_ = std::move(hub);
  } else {
    role_ = std::make_unique<control::Spoke>(network_, join_options_, std::move(own), state_);
  }
  if (role_) role_->start();
  look_at_membership();
}

// In place of the threads that wait for it.
void Rank::look_at_membership() {
  if (phase_ == Phase::kJoining && state_.start_is_decided()) {
    const Result<control::Formed> formed = state_.wait_until_formed();
    if (!formed) return exit(formed.error().message);
    connect_mesh(*formed);
    load();
  }
  if (phase_ == Phase::kAwaitingOthers && state_.readiness_is_decided()) {
    if (const Status ready = state_.wait_until_all_ready(); !ready) return give_up(ready.error());
    world_.note("{} is ready", process_->name);
    phase_ = Phase::kBetweenRounds;
    wake();
  }
  if (phase_ <= Phase::kAwaitingOthers) world_.after(2ms, process_, [this] { look_at_membership(); });
}

void Rank::load() {
  phase_ = Phase::kLoading;
  ranks_.tally().starts++;
  world_.after(world_.random().between(50ms, 2000ms), process_, [this] {
    if (phase_ != Phase::kLoading) return;
    phase_ = Phase::kAwaitingOthers;
    state_.set_activity(cachalot::Phase::kReady, 0);
    if (role_) role_->set_ready();
  });
}

void Rank::connect_mesh(const control::Formed& formed) {
  for (const Member& member : formed.members) {
    const int process_id = parse_number<int>(member.shm_socket).value_or(-1);
    member_processes_.push_back(process_id);
    if (member.rank == group_rank_) continue;
    const ProcessPtr& other = world_.process(process_id);
    ways_[member.rank] = std::make_shared<Way>(world_, process_, other);
    const bool is_own_replica = member.rank / layout_.tp_size == group_rank_ / layout_.tp_size;
    if (is_own_replica) own_ranks_.push_back(member.rank);
    if (member.rank % layout_.tp_size == 0 && is_leader()) other_leaders_.push_back(member.rank);
    step_peers_.push_back(member.rank);
  }
  if (layout_.expert_parallel && !step_peers_.empty()) {
    Random random(ranks_.scenario().seed + 77);  // the same for all ranks
    const EplbOptions options{.enabled = true, .step_interval = random.between(5, 60), .pace = random.between(1, 8)};
    const SharedPlacement first = Experts::first_placement(layout_.group_size(), random.one_in(2));
    council_.emplace(options, group_rank_, first);
    experts_.emplace(first, group_rank_);
  }
  state_.set_lost_handler([this](const LostRank& lost) {
    ranks_.tally().losses++;
    world_.note("{} hears: {}", process_->name, lost.message());
    fail_mesh({ErrorCode::kUnavailable, lost.message(), {}});
  });
}

void Rank::see_death(const Rank& other) {
  const bool is_member = std::ranges::find(member_processes_, other.process_->id) != member_processes_.end();
  if (!is_member || !role_ || phase_ <= Phase::kJoining) return;
  const bool is_near = other.process_->host == process_->host;
  world_.after(world_.random().between(50us, 2ms), process_, [this, rank = other.group_rank_, is_near] {
    if (is_near) role_->process_ended(rank);
    // Some transports see it, too, and know nothing of goodbyes. Those who have left are awaited by nobody.
    if (world_.random().one_in(2) && state_.is_present(rank))
      fail_mesh({ErrorCode::kUnavailable, fmt::format("rank {} has closed its connection", rank), {}});
  });
}

void Rank::fail_mesh(const Error& error) {
  if (!failure_) failure_ = error;
  wake();
}

// As RankGroup does: a transport may see a broken connection before the membership knows why.
void Rank::give_up(const Error& error) {
  phase_ = Phase::kDraining;
  const Time deadline = world_.now() + 2 * kFailureTimeout;
  const auto say = std::make_shared<std::function<void()>>();
  *say = [this, error, deadline, weak = std::weak_ptr(say)] {
    if (error.code == ErrorCode::kUnavailable && !state_.first_lost() && world_.now() < deadline)
      return world_.after(10ms, process_, [again = weak.lock()] { (*again)(); });
    if (role_) state_.first_lost() ? role_->leave() : role_->give_up(error.message);
    says_goodbye_ = true;
    exit(error.message);
  };
  world_.after(0ms, process_, [say] { (*say)(); });
}

// With a goodbye if it has one to say, for which it waits.
void Rank::exit(const std::string& why) {
  phase_ = Phase::kEnded;
  const Time deadline = world_.now() + kGoodbye;
  const auto look = std::make_shared<std::function<void()>>();
  *look = [this, why, deadline, weak = std::weak_ptr(look)] {
    const bool is_through = !role_ || !says_goodbye_ || state_.wait_until_gone(std::chrono::milliseconds(0));
    if (!is_through && world_.now() < deadline)
      return world_.after(5ms, process_, [again = weak.lock()] { (*again)(); });
    world_.note("{} gives up: {}", process_->name, why);
    world_.kill(process_);
  };
  // What was said goes out first.
  world_.after(1ms, process_, [look] { (*look)(); });
}

void Rank::terminate() {
  if (!is_ready() || is_draining_) return;
  is_draining_ = true;
  const Time end = world_.now() + kDrain;
  const auto look = std::make_shared<std::function<void()>>();
  *look = [this, end, weak = std::weak_ptr(look)] {
    if (!is_ready()) return;
    const bool is_idle = !leader_->has_work() && mail_.submissions.empty();
    if (!is_idle && world_.now() < end) return world_.after(50ms, process_, [again = weak.lock()] { (*again)(); });
    mail_.end_all = mail_.leave = true;
    wake();
    world_.after(kDrain, process_, [this] {
      if (is_ready() && layout_.spans_replicas())
        fail_mesh({ErrorCode::kCancelled, "this replica ended before the others did", {}});
    });
  };
  (*look)();
}

// --- Rounds.

void Rank::wake() {
  if (phase_ == Phase::kSleeping) phase_ = Phase::kBetweenRounds;
  if (std::exchange(wake_is_planned_, true)) return;
  world_.after(world_.random().between(1us, 30us), process_, [this] {
    wake_is_planned_ = false;
    advance();
  });
}

void Rank::advance() {
  while (is_ready() && phase_ != Phase::kDraining) {
    if (failure_ && phase_ != Phase::kComputing) return fail(*failure_);
    if (!advance_once()) return;
  }
}

bool Rank::advance_once() {
  switch (phase_) {
    case Phase::kBetweenRounds:
      return begin_round();
    case Phase::kSleeping:
      return sleep();
    case Phase::kAgreeing:
      return agree();
    case Phase::kAwaitingRound:
      return take_round();
    case Phase::kMeeting:
      return meet();
    case Phase::kAwaitingOffer:
      return take_offer();
    case Phase::kExchanging:
      return exchange();
    case Phase::kAwaitingTokens:
      return take_tokens();
    default:
      return false;
  }
}

bool Rank::has_from(const std::vector<int>& peers) const {
  return std::ranges::all_of(peers, [&](int peer) {
    const auto found = from_.find(peer);
    return found != from_.end() && !found->second.empty();
  });
}

std::string Rank::take_from(int peer) {
  std::string bytes = std::move(from_[peer].front());
  from_[peer].pop_front();
  return bytes;
}

template <class Message>
Message Rank::take_message(int peer) {
  const std::string bytes = take_from(peer);
  if (bytes.size() != sizeof(Message))
    throw Violation(fmt::format("{} takes {} bytes of rank {} for what has {}", process_->name, bytes.size(), peer,
                                sizeof(Message)));
  Message message;
  std::memcpy(&message, bytes.data(), sizeof message);
  return message;
}

void Rank::send_to(int peer, std::string bytes) {
  ways_[peer]->send([&ranks = ranks_, process_id = member_processes_[static_cast<size_t>(peer)], from = group_rank_,
                     bytes = std::move(bytes)]() mutable {
    Rank* rank = ranks.rank_of(process_id);
    if (!rank) return;
    rank->from_[from].push_back(std::move(bytes));
    if (rank->from_[from].size() > 64) throw Violation("messages pile up at " + rank->process_->name);
    rank->advance();
  });
}

void Rank::await_with_deadline(Phase phase, const char* what) {
  phase_ = phase;
  world_.after(kMeshDeadline, process_, [this, number = ++num_waits_, phase, what] {
    if (number == num_waits_ && phase_ == phase)
      fail_mesh({ErrorCode::kDeadlineExceeded, fmt::format("{}: rank {} waited in vain", what, group_rank_), {}});
  });
}

bool Rank::begin_round() {
  if (!is_leader()) {
    phase_ = Phase::kAwaitingRound;
    return true;
  }
  const bool leave = mail_.leave;
  leader_->take(std::exchange(mail_, {.leave = leave}), world_.now());
  const auto wish = leader_->next_wish();
  if (!wish) {
    phase_ = Phase::kSleeping;
    return true;
  }
  wish_ = *wish;
  const LeaderWord word = agreements_.begin(*wish);
  for (const int leader : other_leaders_) send_to(leader, to_bytes(word));
  await_with_deadline(Phase::kAgreeing, "agreement");
  return true;
}

bool Rank::sleep() {
  const auto called = [&](int leader) { return has_from({leader}); };
  if (std::ranges::none_of(other_leaders_, called)) return false;
  leader_->hear_call();
  phase_ = Phase::kBetweenRounds;
  return true;
}

bool Rank::agree() {
  if (!has_from(other_leaders_)) return false;
  for (const int leader : other_leaders_) {
    const std::string bytes = take_from(leader);
    LeaderWord word{};
    std::memcpy(&word, bytes.data(), std::min(bytes.size(), sizeof word));
    const auto heard = agreements_.hear(word, bytes.size(), fmt::format("rank {}", leader));
    if (!heard) throw Violation("an agreement among sound ranks fails: " + heard.error().message);
    if (!*heard) throw Violation("a word of another epoch came over this epoch's connection");
  }
  agreement_ = agreements_.end();
  if (agreement_.num_rows == 0) return end_round();

  const StepPlan& plan = leader_->plan();
  if (!plan.sequences.empty() && agreement_.num_steps > plan.num_steps)
    throw Violation(
        fmt::format("{} is to take {} steps, and planned {}", process_->name, agreement_.num_steps, plan.num_steps));
  leader_->begin_round(world_.now());
  result_ = {.round = plan.round, .sequences = std::vector<SequenceResult>(plan.sequences.size())};
  round_ = {.number = num_steps_, .epoch = join_options_.epoch, .num_steps = agreement_.num_steps};
  active_.clear();
  for (size_t idx = 0; idx < plan.sequences.size(); idx++) {
    const PlannedSequence& planned = plan.sequences[idx];
    result_.sequences[idx].id = planned.id;
    round_.sequences.push_back({.first_position = planned.first_position,
                                .num_tokens = planned.num_tokens,
                                .num_prompt_tokens = planned.num_prompt_tokens,
                                .sample = planned.sample,
                                .tokens = planned.tokens.subspan(static_cast<size_t>(planned.first_position),
                                                                 static_cast<size_t>(planned.num_tokens)),
                                .blocks = planned.blocks});
    active_.push_back({.now = round_.sequences.back(), .planned = &planned, .result = &result_.sequences[idx]});
  }
  encode_round(round_, round_bytes_);
  for (const int rank : own_ranks_)
    send_to(rank, {reinterpret_cast<const char*>(round_bytes_.data()), round_bytes_.size()});
  ranks_.tally().rounds++;
  start_steps(agreement_.num_steps);
  return true;
}

bool Rank::take_round() {
  const int leader = group_rank_ - tp_rank_;
  if (!has_from({leader})) return false;
  announced_ = take_from(leader);
  const auto taken = agreements_.take_announced(bytes_of(announced_), round_);
  if (!taken) throw Violation(fmt::format("{} refuses its leader's round: {}", process_->name, taken.error().message));
  if (!*taken) throw Violation("a round of another epoch came over this epoch's connection");
  if (round_.leave) {
    says_goodbye_ = true;
    if (role_) role_->leave();
    exit("it was dismissed");
    return false;
  }
  if (round_.number != num_steps_)
    throw Violation(
        fmt::format("{} is at step {}, its leader's round begins with {}", process_->name, num_steps_, round_.number));
  active_.clear();
  for (const RoundSequence& sequence : round_.sequences) active_.push_back({.now = sequence});
  agreement_.num_rows = -1;  // not known here
  start_steps(round_.num_steps);
  return true;
}

void Rank::start_steps(int num_steps) {
  num_steps_of_round_ = num_steps;
  step_idx_ = 0;
  if (!council_ || !council_->is_due(num_steps_)) return start_step();
  own_word_ = council_->word(num_steps_);
  for (const int peer : step_peers_) send_to(peer, to_bytes(own_word_));
  await_with_deadline(Phase::kMeeting, "council");
}

bool Rank::meet() {
  if (!has_from(step_peers_)) return false;
  std::vector<CouncilWord> words(step_peers_.size() + 1, own_word_);
  for (const int peer : step_peers_) words[static_cast<size_t>(peer)] = take_message<CouncilWord>(peer);
  const auto verdict = council_->hear(words);
  if (!verdict) throw Violation("sound ranks are not in step: " + verdict.error().message);
  switch (*verdict) {
    case CouncilVerdict::kGoOn:
      break;
    case CouncilVerdict::kCount:
      if (group_rank_ == 0)
        world_.after(world_.random().between(1ms, 200ms), process_,
                     [this] { council_->plan(experts_->plan(world_.random())); });
      break;
    case CouncilVerdict::kCopy: {
      if (group_rank_ != 0) {
        await_with_deadline(Phase::kAwaitingOffer, "the experts' next placement");
        return true;
      }
      const std::span<const int32_t> experts = council_->offer()->experts();
      for (const int peer : step_peers_)
        send_to(peer, {reinterpret_cast<const char*>(experts.data()), experts.size_bytes()});
      if (const Status begun = council_->begin(council_->offer()); !begun) throw Violation(begun.error().message);
      bring_experts();
      break;
    }
    case CouncilVerdict::kSwitch:
      num_copyings_++;
      experts_->apply();
      ranks_.tally().switches++;
      break;
    case CouncilVerdict::kDrop:
      num_copyings_++;  // what is still under way is nobody's
      experts_->drop();
      break;
  }
  start_step();
  return true;
}

bool Rank::take_offer() {
  if (!has_from({0})) return false;
  const std::string bytes = take_from(0);
  std::vector<int32_t> experts(bytes.size() / sizeof(int32_t));
  std::memcpy(experts.data(), bytes.data(), bytes.size());
  auto next = with_experts(*council_->now(), experts);
  if (!next) throw Violation("rank 0 offers a placement that is none: " + next.error().message);
  if (const Status begun = council_->begin(std::make_shared<const ExpertPlacement>(std::move(*next))); !begun)
    throw Violation(begun.error().message);
  bring_experts();
  start_step();
  return true;
}

// One after the other, as a thread beside the steps would; now and then one cannot be had.
void Rank::bring_experts() {
  experts_->start(council_->next());
  Duration when{};
  const uint64_t number = ++num_copyings_;
  const bool worked = experts_->num_moves() == 0 || !world_.random().one_in(12);
  for (size_t move = worked ? 0 : 1; move < experts_->num_moves(); move++) {
    when += world_.random().between(10us, 60ms);
    world_.after(when, process_, [this, number, move] {
      if (number == num_copyings_) experts_->bring(move);
    });
  }
  world_.after(when + 1us, process_, [this, number, worked] {
    if (number == num_copyings_) council_->end_copying(worked);
  });
}

// The state behind the last of the tokens, from the one that the cache holds before the first.
uint64_t Rank::compute(const RoundSequence& sequence) {
  const auto slot = [&](int position) -> uint64_t& {
    const int block_size = limits_.block_size;
    return slots_.at(static_cast<size_t>(sequence.blocks[static_cast<size_t>(position / block_size)]) *
                         static_cast<size_t>(block_size) +
                     static_cast<size_t>(position % block_size));
  };
  uint64_t state = sequence.first_position == 0 ? FakeModel::kStart : slot(sequence.first_position - 1);
  for (int idx = 0; idx < sequence.num_tokens; idx++) {
    const int position = sequence.first_position + idx;
    state = ranks_.model().next_state(state, sequence.tokens[static_cast<size_t>(idx)],
                                      position < sequence.num_prompt_tokens);
    slot(position) = state;
  }
  return state;
}

void Rank::start_step() {
  bool any_runs = false;
  int num_rows = 0;
  state_hash_ = 0;
  for (Active& sequence : active_) {
    if (sequence.finished) continue;
    if (step_idx_ > 0) {
      sequence.now.first_position += sequence.now.num_tokens;
      sequence.now.num_tokens = 1;
      sequence.now.tokens = std::span(&sequence.last, 1);
      sequence.num_sampled++;
      if (const Status sound = check_step(sequence.now, limits_); !sound) throw Violation(sound.error().message);
    }
    any_runs = true;
    num_rows += sequence.now.num_tokens;
    state_hash_ = state_hash_ * 31 + compute(sequence.now);
  }
  if (!any_runs && !layout_.spans_replicas()) {
    end_round();
    return;
  }
  state_.set_activity(cachalot::Phase::kStep, num_steps_);
  phase_ = Phase::kComputing;
  const Duration usual = 4ms + num_rows * 30us;
  world_.after(world_.random().between(usual, usual + 2ms), process_, [this] {
    if (phase_ != Phase::kComputing) return;
    if (experts_) experts_->check();
    const StepWord word{num_steps_,          agreement_.num_rows, step_idx_,
                        num_steps_of_round_, state_hash_,         council_ ? council_->now()->version() : 0};
    for (const int peer : step_peers_) send_to(peer, to_bytes(word));
    await_with_deadline(Phase::kExchanging, "experts");
    advance();
  });
}

bool Rank::exchange() {
  if (!has_from(step_peers_)) return false;
  for (const int peer : step_peers_) {
    const auto word = take_message<StepWord>(peer);
    const bool differs_in_rows = word.num_rows >= 0 && agreement_.num_rows >= 0 && word.num_rows != agreement_.num_rows;
    if (word.step != num_steps_ || word.step_idx != step_idx_ || word.num_steps != num_steps_of_round_ ||
        differs_in_rows)
      throw Violation(fmt::format("{} takes step {} ({} of {}) of {} rows, rank {} step {} ({} of {}) of {}",
                                  process_->name, num_steps_, step_idx_, num_steps_of_round_, agreement_.num_rows, peer,
                                  word.step, word.step_idx, word.num_steps, word.num_rows));
    if (council_ && word.placement != council_->now()->version())
      throw Violation(fmt::format("{} computes by placement {}, rank {} by {}", process_->name,
                                  council_->now()->version(), peer, word.placement));
    if (std::ranges::find(own_ranks_, peer) != own_ranks_.end() && word.state != state_hash_)
      throw Violation(
          fmt::format("{} and rank {} of one replica have computed different things", process_->name, peer));
  }
  num_steps_++;
  ranks_.tally().steps++;
  return end_step();
}

void Rank::sample() {
  for (Active& sequence : active_) {
    if (sequence.finished || !sequence.now.sample) continue;
    const int last_position = sequence.now.first_position + sequence.now.num_tokens - 1;
    const int block_size = limits_.block_size;
    const uint64_t state =
        slots_[static_cast<size_t>(sequence.now.blocks[static_cast<size_t>(last_position / block_size)] * block_size +
                                   last_position % block_size)];
    sequence.last = ranks_.model().next_token(state, sequence.planned->sampling->seed);
    sequence.result->tokens.push_back({.token = sequence.last});
    const int num_known = static_cast<int>(sequence.planned->tokens.size()) + sequence.num_sampled;
    sequence.result->finish =
        finish_reason(*sequence.planned->sampling, num_known + 1 - sequence.planned->num_prompt_tokens, sequence.last);
    sequence.finished = sequence.result->finish != FinishReason::kNone;
  }
}

bool Rank::end_step() {
  std::vector<Active*> ran;
  for (Active& sequence : active_)
    if (!sequence.finished) ran.push_back(&sequence);
  if (is_leader()) sample();
  if (step_idx_ + 1 == num_steps_of_round_) return end_round();
  if (!ran.empty() && is_leader()) {
    std::string choices;
    for (const Active* sequence : ran) choices += to_bytes(Choice{sequence->last, sequence->finished});
    for (const int rank : own_ranks_) send_to(rank, choices);
  }
  if (!ran.empty() && !is_leader()) {
    await_with_deadline(Phase::kAwaitingTokens, "sampled tokens");
    return true;
  }
  step_idx_++;
  start_step();
  return true;
}

bool Rank::take_tokens() {
  const int leader = group_rank_ - tp_rank_;
  if (!has_from({leader})) return false;
  const std::string bytes = take_from(leader);
  size_t at = 0;
  for (Active& sequence : active_) {
    if (sequence.finished) continue;
    if (at + sizeof(Choice) > bytes.size()) throw Violation("a leader's tokens are fewer than the sequences");
    Choice choice{};
    std::memcpy(&choice, bytes.data() + at, sizeof choice);
    at += sizeof choice;
    sequence.last = choice.token;
    sequence.finished = choice.finished != 0;
  }
  step_idx_++;
  start_step();
  return true;
}

bool Rank::end_round() {
  state_.set_activity(cachalot::Phase::kIdle, num_steps_);
  phase_ = Phase::kBetweenRounds;
  if (!is_leader()) return true;
  if (agreement_.num_rows > 0 && !leader_->plan().sequences.empty()) {
    leader_->commit(std::move(result_));
    leader_->deliver(world_.now());
    if (world_.random().one_in(8))
      if (const Status sound = check_integrity(*leader_); !sound) throw Violation(sound.error().message);
  }
  if (!agreement_.all_leave) return true;
  round_ = {.number = num_steps_, .epoch = join_options_.epoch, .leave = true};
  encode_round(round_, round_bytes_);
  for (const int rank : own_ranks_)
    send_to(rank, {reinterpret_cast<const char*>(round_bytes_.data()), round_bytes_.size()});
  leader_->finish_all(FinishReason::kAborted, "the server is shutting down", world_.now());
  says_goodbye_ = true;
  if (role_) role_->leave();
  exit("all have left");
  return false;
}

void Rank::fail(const Error& error) {
  is_draining_ = true;
  if (is_leader()) {
    leader_->finish_all(FinishReason::kError, error.message, world_.now());
    leader_->take(std::exchange(mail_, {}), world_.now());
    leader_->finish_all(FinishReason::kError, "the engine has failed", world_.now());
  }
  give_up(error);
}

void Rank::check_quiet() const {
  if (!is_leader()) return;
  if (leader_->has_work() || leader_->num_streams() > 0 || api_->num_calls() > 0 || !mail_.submissions.empty())
    throw Violation(fmt::format("{} still has {} requests when all clients have their answers", process_->name,
                                leader_->num_streams()));
  if (leader_->stats().kv_usage > 0) throw Violation(process_->name + " still holds blocks");
}

}  // namespace cachalot::simulation
