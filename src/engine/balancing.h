#pragma once

#include <chrono>
#include <deque>
#include <future>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "comm/mesh.h"
#include "config/options.h"
#include "engine/expert_mover.h"
#include "engine/neighbours.h"
#include "engine/placement.h"
#include "placement/balance.h"
#include "placement/council.h"

namespace cachalot {

// What a rank does so that its group's experts come to stand where the load wants them, while all compute: meets the
// other ranks (placement/council.h) between two rounds, has their first one plan and its own experts brought beside
// them, and switches. Used by the engine's thread.
class Balancing {
 public:
  struct Options {
    EplbOptions eplb;
    BalanceOptions balance;
    std::vector<int> members;  // all ranks that take part, of the mesh and of the exchange; the first one plans
    std::span<const int> nodes;
    std::vector<int> cores;
    int64_t readers = 0;  // of Neighbours
  };

  // All ranks at the same time, behind loading. counts: of this rank, which `exchange` advances; borrowed, as all else.
  static Result<std::unique_ptr<Balancing>> create(const Options& options, Mesh& mesh, DeepseekModel& model,
                                                   ExpertSlots& slots, ExpertExchange& exchange,
                                                   const WeightCatalog& files, std::span<const uint64_t> counts);

  // Before each round of all ranks, which begins with this step.
  Status before_round(uint64_t step);
  void add_to(RankReport& report) const;
  struct Counts {
    uint64_t switches = 0, moved = 0, failed = 0;
  };
  const Counts& counts() const { return counts_; }
  void count_on_from(const Counts& counts) { counts_ = counts; }
  // Experts are on their way, to somebody at least. The same on all ranks.
  bool is_moving() const { return council_.next() != nullptr; }

 private:
  using Clock = std::chrono::steady_clock;
  // What the first member makes of the counts.
  struct Plan {
    ExpertLoad load;
    std::deque<SharedPlacement> stages;
    double busiest = 1, then = 1;  // rows of the busiest rank over the mean: as it is, and by the last stage
  };

  Balancing(const Options& options, Mesh& mesh, DeepseekModel& model, ExpertSlots& slots, ExpertExchange& exchange,
            const WeightCatalog& files, std::span<const uint64_t> counts);
  Status meet(uint64_t step);
  Status send_counts(uint64_t step);
  Status take_offer(uint64_t step);
  void take_plan();
  void switch_over(uint64_t step, Clock::time_point begin);
  void give_up_moves();
  Status log_balancedness(uint64_t step);

  bool is_first() const { return mesh_.rank() == options_.members.front(); }
  // Messages of all members, in their order: one of each to all others, of each to the first, of the first to all.
  template <class Word>
  Result<std::vector<Word>> exchange_words(const Word& own, const CollectiveSite& site);
  template <class Number>
  Result<std::vector<Number>> gather(std::span<const Number> own, const CollectiveSite& site);
  Status broadcast(std::span<std::byte> bytes, const CollectiveSite& site);
  Status run(std::span<SendOp> sends, std::span<ReceiveOp> receives, const CollectiveSite& site);
  static Plan plan(const ExpertPlacement& now, ExpertLoad load, const BalanceOptions& balance, int num_buffers);

  const Options options_;
  Mesh& mesh_;
  DeepseekModel& model_;
  ExpertExchange& exchange_;
  Neighbours neighbours_;
  ExpertMover mover_;
  Council council_;
  LoadWindow window_;
  std::future<Plan> planning_;  // the first member's
  bool copies_ = false;         // the mover is at it, or through and not applied
  Clock::time_point copying_since_;
  uint64_t copying_since_step_ = 0, next_log_;
  std::vector<uint64_t> rows_before_;  // by layer, when balancedness was logged last

  Counts counts_;
  double balancedness_ = 0;
};

}  // namespace cachalot
