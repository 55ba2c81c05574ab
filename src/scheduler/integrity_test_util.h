#pragma once

#include <algorithm>
#include <vector>

#include "cache/integrity_test_util.h"
#include "scheduler/scheduler.h"

namespace cachalot {

// Compares every block's references with who holds it.
inline Status check_integrity(const Scheduler& scheduler) {
  RETURN_IF_ERROR(check_integrity(scheduler.blocks()));
  if (scheduler.running_.size() + scheduler.waiting_.size() != scheduler.sequences_.size())
    return make_error(ErrorCode::kInternal, "{} requests run and {} wait, of {}", scheduler.running_.size(),
                      scheduler.waiting_.size(), scheduler.sequences_.size());
  if (!std::ranges::is_sorted(scheduler.running_, scheduler.order_))
    return make_error(ErrorCode::kInternal, "the running requests are out of order");
  std::vector<int> num_holders(scheduler.blocks().num_blocks());
  for (const auto& [id, sequence] : scheduler.sequences_) {
    if (scheduler.waiting_.contains(sequence.get()) && !sequence->blocks.blocks.empty())
      return make_error(ErrorCode::kInternal, "request {} waits and holds {} blocks", id,
                        sequence->blocks.blocks.size());
    for (const BlockId block : sequence->blocks.blocks) num_holders[block]++;
  }
  for (BlockId block = 0; block < scheduler.blocks().num_blocks(); block++) {
    if (num_holders[block] != scheduler.blocks().num_references(block))
      return make_error(ErrorCode::kInternal, "block {} has {} references and {} holders", block,
                        scheduler.blocks().num_references(block), num_holders[block]);
  }
  return {};
}

}  // namespace cachalot
