#include "serve/replica.h"

#include <unordered_set>

#include "base/log.h"

namespace cachalot {

Replica::Replica(std::unique_ptr<RankEngine> engine, const SchedulerOptions& options, Metrics& metrics,
                 FailureHandler on_failure, const QueueLimits& queue)
    : queue_(queue),
      max_num_seqs_(options.max_num_seqs),
      engine_(std::move(engine)),
      metrics_(metrics),
      on_failure_(std::move(on_failure)),
      scheduler_(options) {
  report_ = engine_->report();
  thread_ = std::thread([this] { loop(); });
}

Replica::~Replica() {
  leave(std::chrono::steady_clock::now());
  thread_.join();
}

Status Replica::submit(Request request, Listener listener) {
  RETURN_IF_ERROR(scheduler_.check(request));
  {
    const std::lock_guard lock(mutex_);
    if (draining_) return make_error(ErrorCode::kUnavailable, "the server is shutting down");
    if (!healthy()) return make_error(ErrorCode::kUnavailable, "the engine has failed; see the server's log");
    const auto num_tokens = static_cast<int>(request.tokens.size());
    RETURN_IF_ERROR(check_queue(num_tokens));
    if (request.constraint) request.constraint->set_wake([this] { engine_->lockstep().wake(); });
    mailbox_.num_tokens += num_tokens;
    mailbox_.submissions.push_back({std::move(request), std::move(listener)});
    is_idle_ = false;
  }
  engine_->lockstep().wake();
  return {};
}

// With the lock held. What is in the mailbox has not been looked at yet: it starts with the next round, or waits.
Status Replica::check_queue(int num_tokens) const {
  const auto num_new = static_cast<int>(mailbox_.submissions.size());
  if (stats_.num_waiting == 0 && stats_.num_running + num_new < max_num_seqs_) return {};
  const int num_queued = stats_.num_waiting + num_new;
  if (queue_.max_requests > 0 && num_queued >= queue_.max_requests)
    return make_error(ErrorCode::kOutOfMemory,
                      "{} requests wait already, as many as may (--max-num-queued-reqs); try again later", num_queued);
  const int64_t num_queued_tokens = stats_.num_waiting_tokens + mailbox_.num_tokens;
  if (queue_.max_tokens > 0 && num_queued_tokens + num_tokens > queue_.max_tokens)
    return make_error(ErrorCode::kOutOfMemory,
                      "requests of {} tokens wait already, and this one has {}: more than {} may not wait "
                      "(--max-num-queued-tokens); try again later",
                      num_queued_tokens, num_tokens, queue_.max_tokens);
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
  ReplicaStats stats = stats_;
  count(mailbox_, stats);
  return stats;
}

void Replica::count(const Mailbox& mail, ReplicaStats& stats) {
  stats.num_waiting += static_cast<int>(mail.submissions.size());
  stats.num_waiting_tokens += mail.num_tokens;
  stats.num_pending_tokens += mail.num_tokens;
}

RankReport Replica::report() const {
  const std::lock_guard lock(mutex_);
  return report_;
}

void Replica::drain(std::chrono::steady_clock::time_point deadline) {
  std::unique_lock lock(mutex_);
  draining_ = true;
  healthy_.store(false, std::memory_order_relaxed);
  if (changed_.wait_until(lock, deadline, [&] { return is_idle_; })) return;
  mailbox_.end_all = true;
  engine_->lockstep().wake();
  changed_.wait(lock, [&] { return is_idle_; });
}

void Replica::leave(std::chrono::steady_clock::time_point deadline) {
  std::unique_lock lock(mutex_);
  mailbox_.end_all = mailbox_.leave = true;
  changed_.notify_all();  // a replica that failed waits there
  engine_->lockstep().wake();
  if (changed_.wait_until(lock, deadline, [&] { return has_ended_; })) return;
  // One alone needs nobody's word to end; it may only be in the middle of a round.
  if (engine_->placement().parallel.spans_replicas())
    engine_->placement().mesh->fail({ErrorCode::kCancelled, "this replica ended before the others did", {}});
  changed_.wait(lock, [&] { return has_ended_; });
}

void Replica::loop() {
  while (!has_left_) {
    if (const Status stepped = step_together(); !stepped) {
      fail(stepped.error());
      break;
    }
  }
  // A replica that failed ends what still comes.
  for (;;) {
    take_mail();
    deliver(scheduler_.finish_all(leaving_ ? FinishReason::kAborted : FinishReason::kError,
                                  leaving_ ? "the server is shutting down" : "the engine has failed"));
    publish_stats();
    std::unique_lock lock(mutex_);
    if (leaving_) {
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
  const StepPlan plan = scheduler_.has_work() ? scheduler_.plan() : StepPlan{};
  const bool has_word = !plan.sequences.empty() || (leaving_ && !has_said_so_);
  if (!has_word && !others_wait_) {
    publish_stats();
    ASSIGN_OR_RETURN(others_wait_, engine_->lockstep().wait_for_others());
    return {};
  }
  if (!plan.sequences.empty()) publish_stats();  // a round may take seconds
  others_wait_ = false;
  has_said_so_ = leaving_;
  ASSIGN_OR_RETURN(
      const Agreement agreement,
      engine_->lockstep().agree({.num_rows = plan.num_tokens(), .num_steps = plan.num_steps, .leaving = leaving_}));
  if (agreement.num_rows > 0) RETURN_IF_ERROR(run_round(plan, agreement.num_steps));
  publish_stats();
  if (!agreement.all_leave) return {};
  has_left_ = true;
  return engine_->dismiss();
}

Status Replica::run_round(const StepPlan& plan, int num_steps) {
  const auto start = std::chrono::steady_clock::now();
  for (const PlannedSequence& sequence : plan.sequences) {
    const bool may_be_new = sequence.first_position < sequence.num_prompt_tokens;
    if (const auto stream = may_be_new ? streams_.find(sequence.id) : streams_.end(); stream != streams_.end())
      Metrics::note_admission(stream->second.timer, start);
  }
  ASSIGN_OR_RETURN(StepResult result, engine_->run(plan, num_steps));
  if (plan.sequences.empty()) return {};
  metrics_.observe_round(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(),
                         plan.num_tokens());
  std::vector<RequestOutput> outputs = scheduler_.commit(std::move(result));
  const ReplicaStats stats = scheduler_.stats();
  {  // who hears the end of an answer finds its place free
    const std::lock_guard lock(mutex_);
    stats_ = stats;
  }
  deliver(std::move(outputs));
  return {};
}

void Replica::fail(const Error& error) {
  if (leaving_) {
    log::warn("the group ended while this replica was leaving: {}", error.message);
  } else {
    // A lost rank has been reported by who saw it first, the membership.
    log::error("this replica takes no more requests; {} running ones end with an error{}{}", streams_.size(),
               error.code == ErrorCode::kUnavailable ? "" : ": ",
               error.code == ErrorCode::kUnavailable ? "" : error.message);
  }
  healthy_.store(false, std::memory_order_relaxed);
  deliver(scheduler_.finish_all(FinishReason::kError, error.message));
  if (on_failure_ && !leaving_) on_failure_(error);
}

void Replica::take_mail() {
  Mailbox mail;
  {
    const std::lock_guard lock(mutex_);
    std::swap(mail, mailbox_);
    mailbox_.leave = mail.leave;
    count(mail, stats_);  // until the round is planned, when the scheduler has counted them
  }
  const std::unordered_set<RequestId> gone(mail.aborts.begin(), mail.aborts.end());
  for (Submission& submission : mail.submissions) {
    const RequestId id = submission.request.id;
    if (gone.contains(id)) {
      submission.listener({.id = id, .finish = FinishReason::kAborted});
      continue;
    }
    Stream stream{std::move(submission.listener), metrics_.start_request(submission.request)};
    if (Status added = scheduler_.add(std::move(submission.request)); !added) {
      stream.listener({.id = id, .finish = FinishReason::kError, .error = added.error().message, .is_own_fault = true});
      continue;
    }
    streams_.emplace(id, std::move(stream));
  }
  for (const RequestId id : mail.aborts) {
    if (auto output = scheduler_.abort(id)) {
      std::vector<RequestOutput> outputs;
      outputs.push_back(std::move(*output));
      deliver(std::move(outputs));
    }
  }
  leaving_ = mail.leave;
  if (mail.end_all) deliver(scheduler_.finish_all(FinishReason::kAborted, "the server is shutting down"));
}

void Replica::deliver(std::vector<RequestOutput> outputs) {
  for (RequestOutput& output : outputs) {
    const auto found = streams_.find(output.id);
    if (found == streams_.end()) continue;
    metrics_.observe(found->second.timer, output);
    const bool last = output.finish != FinishReason::kNone;
    found->second.listener(std::move(output));
    if (last) streams_.erase(found);
  }
}

void Replica::publish_stats() {
  const ReplicaStats stats = scheduler_.stats();
  const RankReport report = engine_->report();
  const std::lock_guard lock(mutex_);
  stats_ = stats;
  report_ = report;
  is_idle_ = !scheduler_.has_work() && mailbox_.submissions.empty();
  if (is_idle_) changed_.notify_all();
}

}  // namespace cachalot
