#include "serve/replica.h"

#include "base/log.h"

namespace cachalot {

using Clock = std::chrono::steady_clock;

Replica::Replica(std::unique_ptr<RankEngine> engine, const SchedulerOptions& options, Metrics& metrics,
                 FailureHandler on_failure, const QueueLimits& queue, Epochs* epochs)
    : queue_(queue),
      max_num_seqs_(options.max_num_seqs),
      engine_(std::move(engine)),
      metrics_(metrics),
      epochs_(epochs),
      on_failure_(std::move(on_failure)),
      leader_(options, metrics) {
  report_ = engine_->report();
  thread_ = std::thread([this] { loop(); });
}

Replica::~Replica() {
  leave(Clock::now());
  thread_.join();
}

Status Replica::submit(Request request, Listener listener) {
  RETURN_IF_ERROR(leader_.check(request));
  {
    const std::lock_guard lock(mutex_);
    if (draining_) return make_error(ErrorCode::kUnavailable, "the server is shutting down");
    if (!healthy()) return make_error(ErrorCode::kUnavailable, "the engine has failed; see the server's log");
    const auto num_tokens = static_cast<int>(request.tokens.size());
    if (Status fits = check_queue(queue_, max_num_seqs_, stats_, mailbox_, num_tokens, request.is_alone); !fits) {
      metrics_.observe_rejection(std::exchange(fits.error().parameter, {}));
      return fits;
    }
    if (request.constraint) request.constraint->set_wake([this] { engine_->lockstep().wake(); });
    mailbox_.num_tokens += num_tokens;
    mailbox_.submissions.push_back({std::move(request), std::move(listener)});
    is_idle_ = false;
  }
  engine_->lockstep().wake();
  return {};
}

void Replica::abort(RequestId id) {
  {
    const std::lock_guard lock(mutex_);
    mailbox_.aborts.push_back(id);
  }
  engine_->lockstep().wake();
}

ReplicaStats Replica::stats() const {
  const std::lock_guard lock(mutex_);
  return mailbox_.with(stats_);
}

RankReport Replica::report() const {
  const std::lock_guard lock(mutex_);
  return report_;
}

void Replica::drain(Clock::time_point deadline) {
  std::unique_lock lock(mutex_);
  draining_ = true;
  healthy_.store(false, std::memory_order_relaxed);
  if (changed_.wait_until(lock, deadline, [&] { return is_idle_; })) return;
  mailbox_.end_all = true;
  engine_->lockstep().wake();
  if (epochs_) epochs_->cancel();  // the thread may be waiting there
  changed_.wait(lock, [&] { return is_idle_; });
}

void Replica::leave(Clock::time_point deadline) {
  std::unique_lock lock(mutex_);
  mailbox_.end_all = mailbox_.leave = true;
  changed_.notify_all();  // a replica that failed waits there
  engine_->lockstep().wake();
  if (changed_.wait_until(lock, deadline, [&] { return has_ended_; })) return;
  // One alone needs nobody's word to end; it may only be in the middle of a round.
  if (engine_->placement().parallel.spans_replicas())
    engine_->placement().mesh->fail({ErrorCode::kCancelled, "this replica ended before the others did", {}});
  if (epochs_) epochs_->cancel();
  changed_.wait(lock, [&] { return has_ended_; });
}

void Replica::loop() {
  while (!has_left_) {
    Status stepped = step_together();
    if (!stepped && epochs_ && ends_epoch(stepped.error()) && !leader_.is_leaving())
      stepped = change_epoch(stepped.error());
    if (stepped) continue;
    fail(stepped.error());
    break;
  }
  // A replica that failed ends what still comes.
  for (;;) {
    take_mail();
    leader_.finish_all(leader_.is_leaving() ? FinishReason::kAborted : FinishReason::kError,
                       leader_.is_leaving() ? "the server is shutting down" : "the engine has failed", Clock::now());
    publish_stats();
    std::unique_lock lock(mutex_);
    if (leader_.is_leaving()) {
      has_ended_ = true;
      changed_.notify_all();
      return;
    }
    changed_.wait(lock, [&] { return mailbox_.leave || !mailbox_.submissions.empty(); });
  }
}

// One round, or a sleep until there is one to take part in.
Status Replica::step_together() {
  take_mail();
  if (epochs_ && !epochs_->may_step()) {  // if the others are in the same epoch yet, this ends nothing
    if (auto failure = engine_->placement().mesh->failure()) return std::unexpected(std::move(*failure));
    publish_stats();
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    return {};
  }
  if (engine_->lockstep().wants_to_end_epoch()) leader_.hear_call();
  const std::optional<Wish> wish = leader_.next_wish(engine_->serves());
  if (!wish) {
    publish_stats();
    ASSIGN_OR_RETURN(const bool is_called, engine_->lockstep().wait_for_others());
    if (is_called) leader_.hear_call();
    return {};
  }
  if (wish->num_rows > 0) publish_stats();  // a round may take seconds
  ASSIGN_OR_RETURN(const Agreement agreement, engine_->lockstep().agree(*wish));
  if (agreement.num_rows > 0) RETURN_IF_ERROR(run_round(agreement.num_steps));
  publish_stats();
  if (!agreement.all_leave) return {};
  has_left_ = true;
  return engine_->dismiss();
}

Status Replica::run_round(int num_steps) {
  const auto start = Clock::now();
  leader_.begin_round(start);
  const StepPlan& plan = leader_.plan();
  ASSIGN_OR_RETURN(StepResult result, engine_->run(plan, num_steps));
  if (plan.sequences.empty()) return {};
  const auto end = Clock::now();
  metrics_.observe_round(std::chrono::duration<double>(end - start).count(), plan.num_tokens());
  leader_.commit(std::move(result));
  const ReplicaStats stats = leader_.stats();
  {  // who hears the end of an answer finds its place free
    const std::lock_guard lock(mutex_);
    stats_ = stats;
  }
  leader_.deliver(end);
  return {};
}

// The requests stay, each as it was after the last round that was committed.
Status Replica::change_epoch(const Error& over) {
  leader_.abandon_round(Clock::now());
  publish_stats();
  RETURN_IF_ERROR(engine_->enter_next(*epochs_, over));
  if (engine_->take_blocks_lost()) leader_.forget_blocks();
  return {};
}

void Replica::fail(const Error& error) {
  if (leader_.is_leaving()) {
    log::warn("the group ended while this replica was leaving: {}", error.message);
  } else {
    // A lost rank has been reported by who saw it first, the membership.
    log::error("this replica takes no more requests; {} running ones end with an error{}{}", leader_.num_streams(),
               error.code == ErrorCode::kUnavailable ? "" : ": ",
               error.code == ErrorCode::kUnavailable ? "" : error.message);
  }
  healthy_.store(false, std::memory_order_relaxed);
  leader_.finish_all(FinishReason::kError, error.message, Clock::now(),
                     error.code == ErrorCode::kUnavailable ? ErrorCode::kUnavailable : ErrorCode::kInternal);
  if (on_failure_ && !leader_.is_leaving()) on_failure_(error);
}

void Replica::take_mail() {
  LeaderMail mail;
  {
    const std::lock_guard lock(mutex_);
    std::swap(mail, mailbox_);
    mailbox_.leave = mail.leave;
    stats_ = mail.with(stats_);  // until the round is planned, when the scheduler has counted them
  }
  leader_.take(std::move(mail), Clock::now());
}

void Replica::publish_stats() {
  ReplicaStats stats = leader_.stats();
  stats.is_healing = !engine_->serves();
  const RankReport report = engine_->report();
  const std::lock_guard lock(mutex_);
  stats_ = stats;
  report_ = report;
  is_idle_ = !leader_.has_work() && mailbox_.submissions.empty();
  if (is_idle_) changed_.notify_all();
}

}  // namespace cachalot
