#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "engine/rank_engine.h"
#include "scheduler/scheduler.h"

// A scheduler and a rank in turns, without a server.
namespace cachalot::test {

struct Answer {
  std::vector<SampledToken> tokens;
  int num_cached_tokens = 0;
  FinishReason finish = FinishReason::kNone;
  std::string error;
};

class EngineRun {
 public:
  // Fails the test and stays unusable if the model cannot be loaded.
  explicit EngineRun(const EngineOptions& options);

  void submit(Request request);
  // Steps until everything that was submitted is answered.
  void finish();
  void step();
  const Answer& answer(RequestId id) { return answers_[id]; }
  ReplicaStats stats() const { return scheduler_->stats(); }
  RankEngine& engine() { return *engine_; }
  Scheduler& scheduler() { return *scheduler_; }

 private:
  std::unique_ptr<RankEngine> engine_;
  std::unique_ptr<Scheduler> scheduler_;
  std::map<RequestId, Answer> answers_;
};

Request greedy_request(RequestId id, std::vector<TokenId> prompt, int max_tokens);

}  // namespace cachalot::test
