#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/generation.h"
#include "engine/lockstep.h"
#include "scheduler/scheduler.h"
#include "serve/metrics.h"

namespace cachalot {

// What is left for a leader between two rounds.
struct LeaderMail {
  struct Submission {
    Request request;
    GenerationService::Listener listener;
  };
  std::vector<Submission> submissions;
  int64_t num_tokens = 0;  // of the submissions
  std::vector<RequestId> aborts;
  bool end_all = false;  // of what is left
  bool leave = false;

  // The load of a replica that has not looked at it yet.
  ReplicaStats with(ReplicaStats stats) const;
};

// How many requests may wait for room; those that can start at once do not wait.
struct QueueLimits {
  int max_requests = 0;    // 0: no bound
  int64_t max_tokens = 0;  // of their prompts; 0: no bound
};
// Whether one more with so many tokens may come; an error's parameter names the limit. What is in the mailbox starts
// with the next round, or waits.
Status check_queue(const QueueLimits& limits, int max_num_seqs, const ReplicaStats& stats, const LeaderMail& mailbox,
                   int num_tokens, bool is_alone = false);

// What the leader of a replica does, round by round: its scheduler's plans, its words to the other replicas, what its
// listeners hear. A state machine: mail, time, agreements and results come from outside. Replica is the thread that
// drives it:
//
//   leader.take(mail, now);
//   if (const auto wish = leader.next_wish()) {
//     ... all leaders agree ...
//     if (agreement.num_rows > 0) leader.begin_round(now), ... the ranks run leader.plan() ..., leader.commit(result),
//       leader.deliver(now);
//     if (agreement.all_leave) ... that was all ...
//   } else {
//     ... sleep until mail comes, or another leader's word: leader.hear_call() ...
//   }
class Leader {
 public:
  using Time = RequestTimer::Time;

  Leader(const SchedulerOptions& options, Metrics& metrics) : scheduler_(options), metrics_(metrics) {}  // borrowed

  // Whether the request can ever run. Any thread.
  Status check(const Request& request) const { return scheduler_.check(request); }

  void take(LeaderMail mail, Time now);
  // What it says of the next round, which it plans; nothing: it has nothing to say, and nobody asked. serves: the
  // replica has all of its ranks; else its requests wait.
  std::optional<Wish> next_wish(bool serves = true);
  void hear_call() { is_called_ = true; }  // another leader waits for this one's word

  // Of what next_wish() told; valid until commit().
  const StepPlan& plan() const { return plan_; }
  void begin_round(Time now);
  void commit(StepResult result);
  // Instead of commit() and deliver(): the round, planned or under way, is over without a result, and is planned anew.
  void abandon_round(Time now);
  // Between rounds: what the ranks' KV caches held is lost.
  void forget_blocks() { scheduler_.forget_blocks(); }
  // What commit() gave, to who listens.
  void deliver(Time now);

  // Ends all requests, and abandons the round under way, if any.
  // `code`: of the error; kUnavailable: others are at fault.
  void finish_all(FinishReason reason, const std::string& error, Time now, ErrorCode code = ErrorCode::kUnavailable);

  bool is_leaving() const { return is_leaving_; }
  bool has_work() const { return scheduler_.has_work(); }
  size_t num_streams() const { return streams_.size(); }
  ReplicaStats stats() const { return scheduler_.stats(); }

 private:
  friend Status check_integrity(const Leader& leader);  // of tests
  struct Stream {
    GenerationService::Listener listener;
    RequestTimer timer;
  };
  void deliver(std::vector<RequestOutput> outputs, Time now);

  Scheduler scheduler_;
  Metrics& metrics_;
  StepPlan plan_;
  std::vector<RequestOutput> outputs_;
  std::unordered_map<RequestId, Stream> streams_;
  bool is_leaving_ = false, has_said_so_ = false;  // to the other replicas
  bool is_called_ = false;
};

}  // namespace cachalot
