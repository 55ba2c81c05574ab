#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <vector>

#include "core/generation.h"
#include "engine/rank_engine.h"
#include "scheduler/scheduler.h"
#include "serve/metrics.h"

namespace cachalot {

// One replica: its scheduler and its rank, driven by one thread of its own that sleeps while there is nothing to do.
// The public calls are thread-safe: they leave word in a mailbox, which the thread empties between two rounds.
class Replica : public GenerationService {
 public:
  // Takes the rank over; `metrics` is borrowed.
  Replica(std::unique_ptr<RankEngine> engine, const SchedulerOptions& options, Metrics& metrics);
  ~Replica() override;

  RequestId next_id() override { return next_id_.fetch_add(1, std::memory_order_relaxed); }
  Status submit(Request request, Listener listener) override;
  void abort(RequestId id) override;
  ReplicaStats stats() const override;
  // False also while draining, so that a load balancer looks elsewhere.
  bool healthy() const override { return healthy_.load(std::memory_order_relaxed); }

  // Refuses new requests and waits until the running ones are through, at most until the deadline; then ends the rest.
  void drain(std::chrono::steady_clock::time_point deadline);

 private:
  struct Submission {
    Request request;
    Listener listener;
  };
  struct Mailbox {
    std::vector<Submission> submissions;
    std::vector<RequestId> aborts;
    bool stop = false;  // end what is left, and the thread
    bool empty() const { return submissions.empty() && aborts.empty() && !stop; }
  };

  void loop();
  bool take_mail(bool wait);
  void run_round();
  void deliver(std::vector<RequestOutput> outputs);
  void publish_stats();

  std::unique_ptr<RankEngine> engine_;
  Metrics& metrics_;
  std::atomic<RequestId> next_id_{1};
  std::atomic<bool> healthy_{true};

  mutable std::mutex mutex_;  // guards the mailbox, draining_ and stats_
  std::condition_variable wake_, idle_;
  Mailbox mailbox_;
  bool draining_ = false, is_idle_ = true;
  ReplicaStats stats_;

  // The thread's own.
  Scheduler scheduler_;
  struct Stream {
    Listener listener;
    RequestTimer timer;
  };
  std::unordered_map<RequestId, Stream> streams_;
  std::thread thread_;
};

}  // namespace cachalot
