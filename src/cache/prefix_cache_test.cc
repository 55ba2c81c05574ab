#include "cache/prefix_cache.h"

#include <gtest/gtest.h>

#include <numeric>
#include <string>
#include <vector>

namespace cachalot {
namespace {

constexpr int kBlockSize = 4;

PrefixCacheOptions options(int num_blocks) {
  return {.num_blocks = num_blocks, .block_size = kBlockSize};
}

struct Owner {
  std::vector<TokenId> tokens;
  int num_prompt_tokens = 0;
  std::string salt;
  BlockTable table;

  SequenceTokens view() const { return {.tokens = tokens, .num_prompt_tokens = num_prompt_tokens, .salt = salt}; }
  int size() const { return static_cast<int>(tokens.size()); }
};

Owner prompt(int num_tokens, TokenId first = 0) {
  Owner owner{.tokens = std::vector<TokenId>(num_tokens), .num_prompt_tokens = num_tokens};
  std::iota(owner.tokens.begin(), owner.tokens.end(), first);
  return owner;
}

// Runs a sequence through the cache as a scheduler does; the number of tokens that were found.
int run(PrefixCache& cache, Owner& owner) {
  const PrefixCache::Match match = cache.find(owner.table, owner.view(), owner.size() - 1);
  cache.acquire(owner.table, match);
  EXPECT_TRUE(cache.grow(owner.table, owner.size()));
  cache.publish(owner.table, owner.view(), owner.size());
  return match.num_blocks * kBlockSize;
}

TEST(PrefixCache, FindsTheFullBlocksOfAnEqualPrefix) {
  PrefixCache cache(options(16));
  Owner first = prompt(10), same = prompt(10), longer = prompt(13), other = prompt(10);
  other.tokens[5] = 99;
  EXPECT_EQ(run(cache, first), 0);
  EXPECT_EQ(run(cache, same), 8);
  EXPECT_EQ(run(cache, longer), 8);
  EXPECT_EQ(run(cache, other), 4);
  EXPECT_EQ(same.table.blocks[1], first.table.blocks[1]);
  EXPECT_NE(same.table.blocks[2], first.table.blocks[2]);
}

TEST(PrefixCache, LeavesTheLastTokenToBeComputed) {
  PrefixCache cache(options(16));
  Owner first = prompt(8), same = prompt(8);
  run(cache, first);
  EXPECT_EQ(run(cache, same), 4);
}

TEST(PrefixCache, IsSharedAmongEqualSaltsOnly) {
  PrefixCache cache(options(16));
  Owner first = prompt(10), stranger = prompt(10), friendly = prompt(10);
  first.salt = friendly.salt = "tenant";
  run(cache, first);
  EXPECT_EQ(run(cache, stranger), 0);
  EXPECT_EQ(run(cache, friendly), 8);
}

TEST(PrefixCache, TellsRolesApartUnlessToldOtherwise) {
  for (const bool across_roles : {false, true}) {
    PrefixCacheOptions both = options(16);
    both.across_roles = across_roles;
    PrefixCache cache(both);
    Owner answered = prompt(14), next_turn = prompt(14);
    answered.num_prompt_tokens = 6;  // the border lies within the second block
    run(cache, answered);
    EXPECT_EQ(run(cache, next_turn), across_roles ? 12 : 4);
  }
}

TEST(PrefixCache, PublishesOnlyFullBlocksOfComputedTokens) {
  PrefixCache cache(options(16));
  Owner first = prompt(12), same = prompt(12);
  EXPECT_TRUE(cache.grow(first.table, 12));
  EXPECT_EQ(cache.find(same.table, same.view(), 11).num_blocks, 0);
  cache.publish(first.table, first.view(), 7);
  EXPECT_EQ(cache.find(same.table, same.view(), 11).num_blocks, 1);
  cache.publish(first.table, first.view(), 8);
  EXPECT_EQ(cache.find(same.table, same.view(), 11).num_blocks, 2);
}

TEST(PrefixCache, SwitchedOffItFindsNothing) {
  PrefixCacheOptions off = options(16);
  off.enabled = false;
  PrefixCache cache(off);
  Owner first = prompt(10), same = prompt(10);
  run(cache, first);
  EXPECT_EQ(run(cache, same), 0);
}

TEST(PrefixCache, ReleasedBlocksAreFoundUntilTheirRoomIsNeededFromTheEndOn) {
  PrefixCache cache(options(4));
  Owner first = prompt(16), same = prompt(20), other = prompt(8, 1000);
  run(cache, first);
  cache.release(first.table);
  EXPECT_EQ(cache.pool().num_idle(), 4);
  const PrefixCache::Match match = cache.find(same.table, same.view(), 16);
  EXPECT_EQ(match.num_blocks, 4);
  EXPECT_EQ(match.num_idle, 4);
  run(cache, other);
  EXPECT_EQ(cache.find(same.table, same.view(), 16).num_blocks, 2);
  EXPECT_TRUE(cache.pool().check_integrity());
}

TEST(PrefixCache, GrowsByAllOrNothing) {
  PrefixCache cache(options(3));
  Owner owner = prompt(5), greedy = prompt(5, 100);
  EXPECT_TRUE(cache.grow(owner.table, 5));
  EXPECT_EQ(owner.table.blocks.size(), 2u);
  EXPECT_TRUE(cache.grow(owner.table, 8));
  EXPECT_EQ(owner.table.blocks.size(), 2u);
  EXPECT_FALSE(cache.grow(greedy.table, 5));
  EXPECT_TRUE(greedy.table.blocks.empty());
  EXPECT_EQ(cache.pool().num_idle(), 1);
}

TEST(PrefixCache, SaysWhatANewcomerNeedsBeforeItTakesIt) {
  PrefixCache cache(options(8));
  Owner first = prompt(8), held = prompt(12), idle = prompt(12);
  run(cache, first);
  EXPECT_EQ(cache.num_idle_needed(cache.find(held.table, held.view(), 11), 12), 1);
  cache.release(first.table);
  const PrefixCache::Match match = cache.find(idle.table, idle.view(), 11);
  EXPECT_EQ(cache.num_idle_needed(match, 12), 3);
  cache.acquire(idle.table, match);
  EXPECT_TRUE(cache.grow(idle.table, 12));
  EXPECT_EQ(cache.pool().num_idle(), 8 - 3);
}

}  // namespace
}  // namespace cachalot
