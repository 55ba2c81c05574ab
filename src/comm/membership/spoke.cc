#include "comm/membership/spoke.h"

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "base/text.h"

namespace cachalot::control {

namespace {

constexpr std::chrono::milliseconds kConnectTimeout{2'000};
constexpr std::chrono::milliseconds kRetryInterval{200};
// Rank 0 knows whether a process that ended on this node had said goodbye. Without its answer the process counts as
// lost.
constexpr std::chrono::milliseconds kAnswerTimeout{50};

}  // namespace

Spoke::Spoke(Network& network, const JoinOptions& options, Hello own, GroupState& state)
    : options_(options),
      timing_{options.failure_timeout},
      own_(std::move(own)),
      state_(state),
      network_(network),
      retry_timer_(network.make_timer([this] {
        if (!state_.start_is_decided()) connect();
      })),
      watch_timer_(network.make_timer([this] {
        watching_ = false;
        on_watch();
      })),
      clock_(timing_.slack()),
      notices_(options.notice_interval),
      lateness_(timing_.slack()) {}

void Spoke::start() {
  join_deadline_ = network_.now() + options_.join_timeout;
  connect();
}

void Spoke::connect() {
  network_.connect(options_.host, options_.port, kConnectTimeout,
                   [this, attempt = ++num_attempts_](Result<ConnectionPtr> connection) {
                     if (state_.start_is_decided() || attempt != num_attempts_) return;
                     connection ? on_connected(std::move(*connection)) : retry(connection.error().message);
                   });
}

void Spoke::retry(std::string_view why) {
  watch_timer_->cancel();
  const Clock::time_point now = network_.now();
  if (now >= join_deadline_) {
    return fail_start({.code = ErrorCode::kDeadlineExceeded,
                       .message = fmt::format("{} has waited {} s for rank 0 at {}:{} (--data-parallel-address, "
                                              "--data-parallel-rpc-port): {}",
                                              own_.introduction.name(), options_.join_timeout.count() / 1000.0,
                                              options_.host, options_.port, why)});
  }
  if (notices_.due(now))
    log::info("rank {} waits for rank 0 at {}:{} ({})", options_.rank, options_.host, options_.port, why);
  retry_timer_->set(now + kRetryInterval);
}

void Spoke::fail_start(Error error) {
  if (connection_) connection_->close();
  watch_timer_->cancel();
  retry_timer_->cancel();
  state_.set_start_failed(std::move(error));
}

void Spoke::stop_joining() {
  if (formed_) return;
  fail_start({.code = ErrorCode::kCancelled,
              .message = fmt::format("{} was stopped while the group was forming", own_.introduction.name())});
}

void Spoke::on_connected(ConnectionPtr connection) {
  accepted_ = false;
  connection_ = std::move(connection);
  connection_->set_max_receive_bytes(kMaxMessageBytes);
  connection_->set_send_timeout(timing_.send_timeout());
  connection_->start({
      .frame = [this](const Frame& frame) { on_frame(frame); },
      .closed = [this](const Error& error) { on_closed(error); },
  });
  heard_ = clock_.counted(network_.now());
  watch_rank0();
}

void Spoke::on_frame(const Frame& frame) {
  const Clock::time_point now = clock_.counted(network_.now());
  if (frame.header.type == MessageType::kHeartbeat) lateness_.came(now - heard_ - timing_.heartbeat_interval());
  heard_ = now;
  // Who is not accepted is told in rank 0's epoch why.
  if (accepted_ && frame.header.epoch != options_.epoch)
    return log::warn("rank {} passes over a control message of epoch {} from rank 0, the {}. of another epoch than {}",
                     options_.rank, frame.header.epoch, ++num_foreign_, options_.epoch);
  const auto take = [&]<class Message>(const Message&, auto&& handle) {
    Result<Message> message = decode<Message>(frame.payload);
    if (message) return handle(std::move(*message));
    connection_->close();
    on_closed(message.error());
  };
  switch (frame.header.type) {
    case MessageType::kChallenge:
      return take(Challenge{}, [&](const Challenge& challenge) { on_challenge(challenge); });
    case MessageType::kAccepted:
      return take(Accepted{}, [&](const Accepted& accepted) { on_accepted(accepted); });
    case MessageType::kRefused:
      return take(Refused{}, [&](const Refused& refused) {
        const bool known = refused.code <= ErrorCode::kInternal;
        fail_start({.code = known ? refused.code : ErrorCode::kUnavailable,
                    .message = escaped(refused.message),
                    .parameter = escaped(refused.parameter)});
      });
    case MessageType::kFormed:
      return take(Formed{}, [&](Formed formed) { on_formed(std::move(formed)); });
    case MessageType::kHeartbeat:
      return take(Heartbeat{}, [&](const Heartbeat& heartbeat) {
        set_rank0_activity(heartbeat.activity);
        if (!connection_->has_unsent()) send(Heartbeat{.activity = state_.activity()});
      });
    case MessageType::kFailure:
      return take(Failure{}, [&](const Failure& failure) { on_failure(failure); });
    case MessageType::kLeft:
      return take(Left{}, [&](const Left& left) { on_left(left.rank); });
    case MessageType::kReady:
      lateness_ = Lateness(timing_.slack());
      if (rank0_activity_ && rank0_activity_->phase == Phase::kLoading) set_rank0_activity({.phase = Phase::kReady});
      return state_.set_all_ready();
    default:
      return log::warn("rank {} passes over a control message of type {} from rank 0", options_.rank,
                       static_cast<int>(frame.header.type));
  }
}

void Spoke::on_challenge(const Challenge& challenge) {
  rank0_nonce_ = challenge.nonce;
  nonce_ = network_.random_nonce();
  Hello hello = own_;
  hello.nonce = nonce_;
  if (own_.has_secret) hello.proof = proof_of_hello(options_.secret, rank0_nonce_, hello);
  send(hello);
}

void Spoke::on_accepted(const Accepted& accepted) {
  if (own_.has_secret && !equal(accepted.proof, proof_of_rank0(options_.secret, rank0_nonce_, nonce_))) {
    return fail_start(
        {.code = ErrorCode::kInvalidArgument,
         .message = fmt::format("whoever listens at {}:{} does not have the group secret (--group-secret-file)",
                                options_.host, options_.port),
         .parameter = "--group-secret-file"});
  }
  accepted_ = true;
  timing_.failure_timeout = std::chrono::milliseconds(std::max(accepted.failure_timeout_ms, 1u));
  connection_->set_send_timeout(timing_.send_timeout());
  clock_ = PatientClock(timing_.slack());
  lateness_ = Lateness(timing_.slack());
  heard_ = clock_.counted(network_.now());
  watch_rank0();
  log::info("rank {} has found rank 0 at {}:{} and waits for the others", options_.rank, options_.host, options_.port);
}

void Spoke::on_formed(Formed formed) {
  const bool sound = accepted_ && static_cast<int>(formed.members.size()) == options_.size;
  if (!sound || std::ranges::any_of(formed.members, [&](const Member& member) {
        return member.rank != static_cast<int>(&member - formed.members.data());
      })) {
    return fail_start(
        {.code = ErrorCode::kCorrupt, .message = "rank 0 sent a table of members that contradicts itself"});
  }
  formed_ = true;
  state_.set_formed(std::move(formed));
}

// A rank that has loaded has less time to answer, at once and not only when the longer time is over.
void Spoke::set_rank0_activity(const Activity& activity) {
  const bool was_loading = rank0_activity_ && rank0_activity_->phase == Phase::kLoading;
  rank0_activity_ = activity;
  if (was_loading && activity.phase != Phase::kLoading && accepted_) watch_rank0();
}

// --- Losses.

void Spoke::on_failure(const Failure& failure) {
  if (!formed_ || failure.rank < 0 || failure.rank >= options_.size) return;
  state_.report_lost(failure.rank, escaped(failure.cause),
                     failure.activity_known ? std::optional(failure.activity) : std::nullopt);
}

void Spoke::on_left(int rank) {
  if (!formed_ || rank < 0 || rank >= options_.size) return;
  state_.set_left(rank);
  if (rank == options_.rank) state_.set_gone();
}

void Spoke::on_closed(const Error& error) {
  if (state_.start_is_decided() && !formed_) return;
  if (leaving_) return state_.set_gone();
  if (formed_) {
    return lose_rank0(error.message.empty() ? std::string(kConnectionClosed)
                                            : fmt::format("its control connection broke: {}", error.message));
  }
  if (error.code == ErrorCode::kCorrupt) {
    return fail_start(
        {.code = ErrorCode::kInvalidArgument,
         .message = fmt::format("{}:{} (--data-parallel-address, --data-parallel-rpc-port) answers, but not as rank "
                                "0 of a group: {}",
                                options_.host, options_.port, error.message)});
  }
  retry(error.message.empty() ? "it closed the connection" : error.message);
}

void Spoke::lose_rank0(std::string cause) {
  if (state_.is_present(0)) state_.report_lost(0, std::move(cause), rank0_activity_);
  watch_timer_->cancel();
}

void Spoke::process_ended(int rank) {
  // Without rank 0 nobody knows any longer who said goodbye and who was lost.
  if (!state_.is_present(rank) || !state_.is_present(0)) return;
  send(Failure{.rank = rank, .cause = std::string(kProcessDied)});
  std::unique_ptr<Timer>& answer_timer = answer_timers_.emplace_back();
  answer_timer = network_.make_timer([this, rank] {
    const bool unknown = state_.is_present(rank) && (rank == 0 || state_.is_present(0));
    if (unknown && !leaving_) state_.report_lost(rank, std::string(kProcessDied), std::nullopt);
  });
  answer_timer->set(network_.now() + kAnswerTimeout);
}

void Spoke::set_ready() {
  send(Ready{});
}

void Spoke::give_up(std::string why) {
  send(Failure{.rank = options_.rank,
               .cause = fmt::format("it gave up: {}", why),
               .activity_known = true,
               .activity = state_.activity()});
  leave();
}

void Spoke::leave() {
  leaving_ = true;
  watch_timer_->cancel();
  state_.set_left(options_.rank);
  send(Left{.rank = options_.rank});
  if (connection_->ended()) state_.set_gone();
}

// --- Time.

Spoke::Clock::duration Spoke::silence_limit() const {
  if (!accepted_) return options_.greeting_timeout;
  return timing_.silence_limit(lateness_, rank0_activity_ && rank0_activity_->phase == Phase::kLoading);
}

void Spoke::watch_rank0() {
  watching_ = false;
  const Clock::time_point now = network_.now();
  planned_ = std::max(now + silence_limit() - (clock_.counted(now) - heard_), now + std::chrono::milliseconds(1));
  watch_timer_->set(planned_);
  watching_ = true;
}

void Spoke::resume() {
  const bool connected = connection_ && !connection_->ended();
  if (connected && !watching_) return watch_rank0();
  if (!connected && !state_.start_is_decided()) retry("the last attempt failed");
}

void Spoke::on_watch() {
  if (connection_->ended()) {  // and what followed from that may have failed
    if (formed_ && !leaving_) lose_rank0(std::string(kConnectionClosed));
    return;
  }
  const Clock::time_point now = network_.now();
  if (!clock_.woke(planned_, now)) {
    // What rank 0 said meanwhile lies unread: it gets another interval.
    heard_ = std::max(heard_, clock_.counted(now) - silence_limit() + timing_.heartbeat_interval());
    return watch_rank0();
  }
  const Clock::duration silence = clock_.counted(now) - heard_;
  if (silence < silence_limit()) return watch_rank0();
  if (!formed_) {
    connection_->close();
    return retry("it says nothing");
  }
  send(Failure{.rank = 0, .cause = Timing::silence_text(silence), .activity_known = false});
  connection_->finish();
  lose_rank0(Timing::silence_text(silence) + " (it is stopped, or this host is cut off)");
}

}  // namespace cachalot::control
