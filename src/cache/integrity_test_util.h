#pragma once

#include "cache/prefix_cache.h"

namespace cachalot {

// Says what contradicts itself, if anything; walks everything.
inline Status check_integrity(const BlockPool& pool) {
  std::vector<bool> listed(pool.blocks_.size());
  int num_listed = 0;
  for (BlockId block = pool.blocks_[pool.list()].next; block != pool.list(); block = pool.blocks_[block].next) {
    if (listed[block]) return make_error(ErrorCode::kInternal, "block {} stands twice in the idle list", block);
    if (pool.blocks_[pool.blocks_[block].next].previous != block)
      return make_error(ErrorCode::kInternal, "block {}'s successor in the idle list does not point back", block);
    listed[block] = true;
    num_listed++;
  }
  if (num_listed != pool.num_idle_)
    return make_error(ErrorCode::kInternal, "{} blocks are listed as idle, {} counted", num_listed, pool.num_idle_);
  size_t num_published = 0;
  for (BlockId block = 0; block < pool.num_blocks(); block++) {
    const auto& entry = pool.blocks_[block];
    if (listed[block] != (entry.num_references == 0))
      return make_error(ErrorCode::kInternal, "block {} has {} references and is {}", block, entry.num_references,
                        listed[block] ? "idle" : "not idle");
    if (!entry.is_published) continue;
    num_published++;
    if (pool.find(entry.hash) != block)
      return make_error(ErrorCode::kInternal, "block {} is published, but not found by its hash", block);
  }
  if (num_published != pool.index_.size())
    return make_error(ErrorCode::kInternal, "{} blocks are published, the index has {} names", num_published,
                      pool.index_.size());
  return {};
}

}  // namespace cachalot
