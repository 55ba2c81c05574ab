#include "serve/leader.h"

#include <unordered_set>
#include <utility>

namespace cachalot {

ReplicaStats LeaderMail::with(ReplicaStats stats) const {
  stats.num_waiting += static_cast<int>(submissions.size());
  stats.num_waiting_tokens += num_tokens;
  stats.num_pending_tokens += num_tokens;
  return stats;
}

Status check_queue(const QueueLimits& limits, int max_num_seqs, const ReplicaStats& stats, const LeaderMail& mailbox,
                   int num_tokens, bool is_alone) {
  const auto num_new = static_cast<int>(mailbox.submissions.size());
  if (stats.num_waiting == 0 && stats.num_running + num_new < max_num_seqs) return {};
  const int num_queued = stats.num_waiting + num_new;
  // Who has nothing here yet is let in beyond the bound, which others have reached.
  if (is_alone && (limits.max_requests == 0 || num_queued < 2 * limits.max_requests)) return {};
  if (limits.max_requests > 0 && num_queued >= limits.max_requests)
    return std::unexpected(Error{
        ErrorCode::kOutOfMemory,
        fmt::format("{} requests wait already, as many as may (--max-num-queued-reqs); try again later", num_queued),
        "max_num_queued_reqs"});
  const int64_t num_queued_tokens = stats.num_waiting_tokens + mailbox.num_tokens;
  if (limits.max_tokens > 0 && num_queued_tokens + num_tokens > limits.max_tokens)
    return std::unexpected(
        Error{ErrorCode::kOutOfMemory,
              fmt::format("requests of {} tokens wait already, and this one has {}: more than {} may not wait "
                          "(--max-num-queued-tokens); try again later",
                          num_queued_tokens, num_tokens, limits.max_tokens),
              "max_num_queued_tokens"});
  return {};
}

void Leader::take(LeaderMail mail, Time now) {
  const std::unordered_set<RequestId> gone(mail.aborts.begin(), mail.aborts.end());
  for (LeaderMail::Submission& submission : mail.submissions) {
    const RequestId id = submission.request.id;
    if (gone.contains(id)) {
      submission.listener({.id = id, .finish = FinishReason::kAborted});
      continue;
    }
    Stream stream{std::move(submission.listener), metrics_.start_request(submission.request, now)};
    if (Status added = scheduler_.add(std::move(submission.request)); !added) {
      stream.listener({.id = id, .finish = FinishReason::kError, .error = added.error().message, .is_own_fault = true});
      continue;
    }
    streams_.emplace(id, std::move(stream));
  }
  std::vector<RequestOutput> outputs;
  for (const RequestId id : mail.aborts)
    if (auto output = scheduler_.abort(id)) outputs.push_back(std::move(*output));
  deliver(std::move(outputs), now);
  is_leaving_ = mail.leave;
  if (mail.end_all) finish_all(FinishReason::kAborted, "the server is shutting down", now);
}

std::optional<Wish> Leader::next_wish(bool serves) {
  plan_ = serves && scheduler_.has_work() ? scheduler_.plan() : StepPlan{};
  const bool has_word = !plan_.sequences.empty() || (is_leaving_ && !has_said_so_);
  if (!has_word && !is_called_) return std::nullopt;
  is_called_ = false;
  has_said_so_ = is_leaving_;
  return Wish{.num_rows = plan_.num_tokens(), .num_steps = plan_.num_steps, .leaving = is_leaving_};
}

void Leader::begin_round(Time now) {
  for (const PlannedSequence& sequence : plan_.sequences) {
    const bool may_be_new = sequence.first_position < sequence.num_prompt_tokens;
    if (const auto stream = may_be_new ? streams_.find(sequence.id) : streams_.end(); stream != streams_.end())
      Metrics::note_admission(stream->second.timer, now);
  }
}

void Leader::commit(StepResult result) {
  outputs_ = scheduler_.commit(std::move(result));
}

void Leader::abandon_round(Time now) {
  plan_ = {};
  deliver(scheduler_.abandon_round(), now);
}

void Leader::deliver(Time now) {
  deliver(std::exchange(outputs_, {}), now);
}

void Leader::finish_all(FinishReason reason, const std::string& error, Time now, ErrorCode code) {
  deliver(scheduler_.finish_all(reason, error, code), now);
}

void Leader::deliver(std::vector<RequestOutput> outputs, Time now) {
  for (RequestOutput& output : outputs) {
    const auto found = streams_.find(output.id);
    if (found == streams_.end()) continue;
    metrics_.observe(found->second.timer, output, now);
    const bool last = output.finish != FinishReason::kNone;
    if (last) output.times = found->second.timer.times;
    found->second.listener(std::move(output));
    if (last) streams_.erase(found);
  }
}

}  // namespace cachalot
