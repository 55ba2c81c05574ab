#include "cache/prefix_cache.h"

#include <algorithm>

#include "base/check.h"

namespace cachalot {

PrefixCache::PrefixCache(const PrefixCacheOptions& options)
    : options_(options), hasher_(options.hash_key), pool_(options.num_blocks) {
  CHECK(options_.block_size > 0, "blocks of {} tokens", options_.block_size);
}

void PrefixCache::extend_hashes(BlockTable& table, const SequenceTokens& sequence, int num_blocks) const {
  const int block_size = options_.block_size;
  for (int idx = static_cast<int>(table.hashes.size()); idx < num_blocks; idx++) {
    const int begin = idx * block_size;
    const int num_prompt_tokens =
        options_.across_roles ? 0 : std::clamp(sequence.num_prompt_tokens - begin, 0, block_size);
    const BlockHash parent = idx == 0 ? hasher_.root(sequence.salt) : table.hashes.back();
    table.hashes.push_back(hasher_.chained(parent, sequence.tokens.subspan(begin, block_size), num_prompt_tokens));
  }
}

PrefixCache::Match PrefixCache::find(BlockTable& table, const SequenceTokens& sequence, int max_tokens) const {
  Match match;
  if (!options_.enabled) return match;
  const int max_blocks = max_tokens / options_.block_size;
  while (match.num_blocks < max_blocks) {
    extend_hashes(table, sequence, match.num_blocks + 1);
    const std::optional<BlockId> block = pool_.find(table.hashes[match.num_blocks]);
    if (!block) break;
    match.num_blocks++;
    match.num_idle += pool_.num_references(*block) == 0;
  }
  return match;
}

int PrefixCache::num_idle_needed(const Match& match, int num_slots) const {
  return num_blocks_for(num_slots) - match.num_blocks + match.num_idle;
}

void PrefixCache::acquire(BlockTable& table, const Match& match) {
  CHECK(table.blocks.empty() && table.num_published == 0);
  for (int idx = 0; idx < match.num_blocks; idx++) {
    const std::optional<BlockId> block = pool_.find(table.hashes[idx]);
    CHECK(block, "a block that was found is gone; nothing may be taken between find and acquire");
    pool_.add_reference(*block);
    table.blocks.push_back(*block);
  }
  table.num_published = match.num_blocks;
}

bool PrefixCache::grow(BlockTable& table, int num_slots) {
  const int num_missing = num_blocks_for(num_slots) - static_cast<int>(table.blocks.size());
  if (num_missing > pool_.num_idle()) return false;
  for (int count = 0; count < num_missing; count++) table.blocks.push_back(pool_.take());
  return true;
}

void PrefixCache::publish(BlockTable& table, const SequenceTokens& sequence, int num_computed) {
  const int num_full = num_computed / options_.block_size;
  if (!options_.enabled || num_full <= table.num_published) return;
  extend_hashes(table, sequence, num_full);
  for (int idx = table.num_published; idx < num_full; idx++) pool_.publish(table.blocks[idx], table.hashes[idx]);
  table.num_published = num_full;
}

void PrefixCache::release(BlockTable& table) {
  // From the end, so that of two idle blocks of a prefix the later one, useless without the earlier, is taken first.
  for (auto block = table.blocks.rbegin(); block != table.blocks.rend(); ++block) pool_.release(*block);
  table.blocks.clear();
  table.num_published = 0;
}

}  // namespace cachalot
