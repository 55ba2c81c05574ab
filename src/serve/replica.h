#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

#include "core/generation.h"
#include "engine/rank_engine.h"
#include "serve/leader.h"

namespace cachalot {

// One replica: its leader and the leader's rank, driven by one thread of its own that sleeps while no replica
// of the group has anything to do. The public calls are thread-safe: they leave word in a mailbox, which the thread
// empties between two rounds.
class Replica : public GenerationService {
 public:
  // Told on the replica's thread, once, when a round failed: the replica takes no more requests.
  using FailureHandler = std::function<void(const Error&)>;

  // Takes the rank over; `metrics` and `epochs` are borrowed. epochs: where the next one is heard of when one is over,
  // so that the replica goes on with its requests; null: it then fails.
  Replica(std::unique_ptr<RankEngine> engine, const SchedulerOptions& options, Metrics& metrics,
          FailureHandler on_failure = {}, const QueueLimits& queue = {}, Epochs* epochs = nullptr);
  // Leaves the group, if leave() was not called.
  ~Replica() override;

  RequestId next_id() override { return next_id_.fetch_add(1, std::memory_order_relaxed); }
  Status submit(Request request, Listener listener) override;
  void abort(RequestId id) override;
  // As of the last round, with the requests that came since then.
  ReplicaStats stats() const override;
  // False also while draining, so that a load balancer looks elsewhere.
  bool healthy() const override { return healthy_.load(std::memory_order_relaxed); }

  // Refuses new requests and waits until the running ones are through, at most until the deadline; then ends the rest.
  void drain(std::chrono::steady_clock::time_point deadline);
  // Ends what is left and the thread. The replicas of a group end together, with the last one that leaves: this one
  // takes part with zero rows until then, but no longer than the deadline.
  void leave(std::chrono::steady_clock::time_point deadline);

  // Ends this epoch of the group between two rounds: a rank comes, or goes.
  void end_epoch(uint32_t epoch) { engine_->lockstep().end_epoch(epoch); }

  // What the leader's rank has done, as of the last round.
  RankReport report() const;

 private:
  void loop();
  Status step_together();
  void take_mail();
  Status run_round(int num_steps);
  Status change_epoch(const Error& over);
  void fail(const Error& error);
  void publish_stats();

  const QueueLimits queue_;
  const int max_num_seqs_;
  std::unique_ptr<RankEngine> engine_;
  Metrics& metrics_;
  Epochs* const epochs_;
  std::atomic<RequestId> next_id_{1};
  std::atomic<bool> healthy_{true};

  mutable std::mutex mutex_;         // guards what follows
  std::condition_variable changed_;  // is_idle_ or has_ended_
  LeaderMail mailbox_;
  bool draining_ = false, is_idle_ = true, has_ended_ = false;
  ReplicaStats stats_;
  RankReport report_;

  // The thread's own.
  FailureHandler on_failure_;
  Leader leader_;
  bool has_left_ = false;
  std::thread thread_;
};

}  // namespace cachalot
