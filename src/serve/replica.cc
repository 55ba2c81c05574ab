#include "serve/replica.h"

#include "base/log.h"

namespace cachalot {

Replica::Replica(std::unique_ptr<RankEngine> engine, const SchedulerOptions& options, Metrics& metrics)
    : engine_(std::move(engine)), metrics_(metrics), scheduler_(options) {
  thread_ = std::thread([this] { loop(); });
}

Replica::~Replica() {
  {
    const std::lock_guard lock(mutex_);
    mailbox_.stop = true;
  }
  wake_.notify_one();
  thread_.join();
}

Status Replica::submit(Request request, Listener listener) {
  RETURN_IF_ERROR(scheduler_.check(request));
  {
    const std::lock_guard lock(mutex_);
    if (draining_) return make_error(ErrorCode::kUnavailable, "the server is shutting down");
    if (!healthy()) return make_error(ErrorCode::kUnavailable, "the engine has failed; see the server's log");
    mailbox_.submissions.push_back({std::move(request), std::move(listener)});
    is_idle_ = false;
  }
  wake_.notify_one();
  return {};
}

void Replica::abort(RequestId id) {
  {
    const std::lock_guard lock(mutex_);
    mailbox_.aborts.push_back(id);
  }
  wake_.notify_one();
}

ReplicaStats Replica::stats() const {
  const std::lock_guard lock(mutex_);
  return stats_;
}

void Replica::drain(std::chrono::steady_clock::time_point deadline) {
  std::unique_lock lock(mutex_);
  draining_ = true;
  healthy_.store(false, std::memory_order_relaxed);
  if (idle_.wait_until(lock, deadline, [&] { return is_idle_; })) return;
  mailbox_.stop = true;
  wake_.notify_one();
  idle_.wait(lock, [&] { return is_idle_; });
}

void Replica::loop() {
  while (take_mail(!scheduler_.has_work())) {
    if (scheduler_.has_work()) run_round();
    publish_stats();
  }
  deliver(scheduler_.finish_all(FinishReason::kAborted, "the server is shutting down"));
  publish_stats();
}

// Empties the mailbox; false: stop. `wait`: sleeps until there is something.
bool Replica::take_mail(bool wait) {
  Mailbox mail;
  {
    std::unique_lock lock(mutex_);
    if (wait) wake_.wait(lock, [&] { return !mailbox_.empty(); });
    std::swap(mail, mailbox_);
    mailbox_.stop = mail.stop;
  }
  for (Submission& submission : mail.submissions) {
    const RequestId id = submission.request.id;
    Stream stream{std::move(submission.listener), metrics_.start_request(submission.request)};
    if (Status added = scheduler_.add(std::move(submission.request)); !added) {
      stream.listener({.id = id, .finish = FinishReason::kError, .error = added.error().message});
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
  return !mail.stop;
}

void Replica::run_round() {
  const StepPlan plan = scheduler_.plan();
  if (plan.sequences.empty()) return;
  const auto start = std::chrono::steady_clock::now();
  const int num_tokens = plan.num_tokens();
  Result<StepResult> result = engine_->run(plan);
  metrics_.observe_round(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(), num_tokens);
  if (result) return deliver(scheduler_.commit(std::move(*result)));
  log::error("a step failed, the replica takes no more requests: {}", result.error().message);
  healthy_.store(false, std::memory_order_relaxed);
  deliver(scheduler_.finish_all(FinishReason::kError, result.error().message));
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
  const std::lock_guard lock(mutex_);
  stats_ = stats;
  stats_.num_steps = engine_->num_steps();
  is_idle_ = !scheduler_.has_work() && mailbox_.submissions.empty();
  if (is_idle_) idle_.notify_all();
}

}  // namespace cachalot
