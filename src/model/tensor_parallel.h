#pragma once

#include "comm/group.h"
#include "config/model_config.h"
#include "kernels/ops.h"
#include "model/model_settings.h"
#include "model/workspace.h"

namespace cachalot {

// What a group for this model sums up at a time, at most: MeshGroupOptions::max_reduced_bytes.
int64_t max_reduced_bytes(const ModelConfig& config, const ModelSettings& settings);

// Moves rows between "each rank its own" (between two attentions: sequence parallelism) and "all rows on every rank".
// With one rank both are the same memory and nothing moves.
class TensorParallel {
 public:
  TensorParallel(Group& group, const Ops& ops, const Workspace& workspace, DType compute_dtype)
      : group_(group), ops_(ops), workspace_(workspace), compute_dtype_(compute_dtype) {}

  int size() const { return group_.size(); }
  RowPartition partition(int64_t num_rows) const { return RowPartition(num_rows, group_.size()); }
  int64_t own_begin(int64_t num_rows) const { return partition(num_rows).begin(group_.rank()); }
  int64_t own_count(int64_t num_rows) const { return partition(num_rows).count(group_.rank()); }

  // All ranks' rows, rounded to the compute dtype; with one rank `own` itself. `all` [num_rows, features] is used else.
  Result<View<float, 2>> gather(View<float, 2> own, View<float, 2> all, const CollectiveSite& site) const;
  // own = this rank's rows of the sum over ranks. With one rank partial and own are the same memory.
  Status scatter_sum(View<float, 2> partial, View<float, 2> own, const CollectiveSite& site) const;
  Group& group() const { return group_; }

 private:
  Group& group_;
  const Ops& ops_;
  const Workspace& workspace_;
  DType compute_dtype_;
};

}  // namespace cachalot
