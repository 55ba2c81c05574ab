#pragma once

#include <memory>
#include <vector>

#include "comm/expert_exchange.h"
#include "comm/local/local_hub.h"
#include "device/device.h"

namespace cachalot {

struct ExpertExchangeLimits {
  int num_experts = 0, top_k = 0;
  int64_t hidden_size = 0;
  int64_t row_bytes = 0;  // at most
  int64_t max_rows = 0;  // that one rank brings
  DType compute_dtype = DType::kBF16;
};

// Expert exchange among threads of one process. Of one rank, no row moves: experts read the dispatched rows and combine
// reads their results where they were written.
class LocalExpertExchange : public ExpertExchange {
 public:
  // Borrows the hub, which is this exchange's alone.
  static Result<std::unique_ptr<LocalExpertExchange>> create(LocalHub& hub, int rank,
                                                             const ExpertExchangeLimits& limits);

  int first_local_expert() const override { return rank_ * num_local_experts(); }
  int num_local_experts() const override { return limits_.num_experts / hub_.num_ranks(); }
  Status dispatch(const DispatchRows& rows, const CollectiveSite& site) override;
  Result<bool> next(ArrivedRows& arrived) override;
  Result<CombinedRows> combine() override;

 private:
  struct Pair {           // one slot of some rank's rows whose expert is here
    int32_t expert, row;  // local expert, arrived row
    int32_t home;         // rank
    int32_t slot;         // row * top_k + k at home
  };

  LocalExpertExchange(LocalHub& hub, int rank, const ExpertExchangeLimits& limits)
      : hub_(hub), rank_(rank), limits_(limits) {}
  void collect_pairs();
  void sort_pairs();

  LocalHub& hub_;
  int rank_;
  ExpertExchangeLimits limits_;
  CollectiveSite site_;
  DispatchRows own_;
  bool delivered_ = false;
  int64_t num_arrived_ = 0;
  std::vector<Pair> pairs_, sorted_;
  std::vector<int32_t> pair_rows_, result_rows_, offsets_, cursor_, row_ids_;
  Buffer arrived_rows_;  // more than one rank: copies of the others' rows
  Buffer results_;       // of this rank's experts
  Buffer combined_;      // more than one rank: results for this rank's rows
};

}  // namespace cachalot
