#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "cache/block_pool.h"
#include "core/types.h"

namespace cachalot {

struct PrefixCacheOptions {
  int num_blocks = 0;
  int block_size = 64;
  bool enabled = true;        // off: blocks are handed out, but nothing is found again
  bool across_roles = false;  // on: roles are left out of the hash, so that an answer in the next prompt is found
  BlockHashKey hash_key = {};
};

// What a sequence says about itself.
struct SequenceTokens {
  std::span<const TokenId> tokens;  // all known ones; only ever appended to
  int num_prompt_tokens = 0;
  std::string_view salt;
};

// The blocks that one sequence holds, in the order of its positions. Kept by the sequence's owner, changed by
// PrefixCache.
struct BlockTable {
  std::vector<BlockId> blocks;
  std::vector<BlockHash> hashes;  // of its leading full blocks, as far as they were needed; they outlive the blocks
  int num_published = 0;          // leading blocks that were found in or put into the index
};

// Gives sequences their blocks, and shares the blocks of equal prefixes: bookkeeping, no tensors. A shared block is
// full and never written again: sequences write only behind what they found. Used by one thread.
class PrefixCache {
 public:
  explicit PrefixCache(const PrefixCacheOptions& options);

  struct Match {
    int num_blocks = 0;  // leading blocks that the index holds
    int num_idle = 0;    // those of them that nobody holds: acquiring them takes from the idle ones
  };
  // The longest cached prefix of at most max_tokens tokens. Takes nothing.
  Match find(BlockTable& table, const SequenceTokens& sequence, int max_tokens) const;

  // Idle blocks that a sequence without blocks needs to start from `match` with room for num_slots tokens.
  int num_idle_needed(const Match& match, int num_slots) const;
  // Starts an empty table with the match's blocks.
  void acquire(BlockTable& table, const Match& match);
  // Further blocks until there is room for num_slots tokens; takes all or, if too few are idle, none.
  bool grow(BlockTable& table, int num_slots);
  // Puts the full blocks among the first num_computed tokens into the index.
  void publish(BlockTable& table, const SequenceTokens& sequence, int num_computed);
  // Gives all blocks back; what was published can be found until the room is needed, the prefix's end going first.
  void release(BlockTable& table);

  int block_size() const { return options_.block_size; }
  int num_blocks_for(int num_slots) const { return (num_slots + options_.block_size - 1) / options_.block_size; }
  const BlockPool& pool() const { return pool_; }

 private:
  void extend_hashes(BlockTable& table, const SequenceTokens& sequence, int num_blocks) const;

  PrefixCacheOptions options_;
  BlockHasher hasher_;
  BlockPool pool_;
};

}  // namespace cachalot
