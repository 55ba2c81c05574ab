#include "cache/prefix_cache.h"

#include <gtest/gtest.h>

#define XXH_INLINE_ALL  // header only
#include <xxhash.h>

#include <algorithm>
#include <deque>
#include <map>
#include <numeric>
#include <random>
#include <set>
#include <string>

#include "cache/integrity_test_util.h"

namespace cachalot {
namespace {

const BlockHasher kHasher({1});
const BlockHash kRoot = kHasher.root("tenant");

TEST(BlockHash, EverythingThatDecidesTheContentsMatters) {
  const std::vector<TokenId> tokens = {1, 2, 3, 4}, other = {1, 2, 4, 3}, longer = {1, 2, 3, 4, 5};
  const BlockHash base = kHasher.chained(kRoot, tokens, 4);
  EXPECT_EQ(kHasher.chained(kRoot, tokens, 4), base);
  EXPECT_EQ(BlockHasher({1}).chained(kRoot, tokens, 4), base);
  EXPECT_NE(kHasher.chained(kRoot, other, 4), base) << "tokens";
  EXPECT_NE(kHasher.chained(kRoot, longer, 4), base) << "their number";
  EXPECT_NE(kHasher.chained(kRoot, tokens, 3), base) << "roles";
  EXPECT_NE(kHasher.chained(base, tokens, 4), base) << "what comes before";
  EXPECT_NE(kHasher.chained(kHasher.root("other tenant"), tokens, 4), base) << "tenant";
}

TEST(BlockHash, TheKeyMattersInEveryLink) {
  const std::vector<TokenId> tokens = {1, 2, 3, 4};
  BlockHashKey key = {1};
  key.back() = 7;
  const BlockHasher other(key);
  EXPECT_NE(other.root("tenant"), kRoot);
  EXPECT_NE(other.chained(kRoot, tokens, 4), kHasher.chained(kRoot, tokens, 4));
  EXPECT_NE(random_block_hash_key(), random_block_hash_key());
}

// XXH3 adds up products of 32-bit halves, of the text and a known pad: where a token equals the pad's half, its
// neighbour only counts in a sum, and two such neighbours may give and take.
TEST(BlockHash, ATwinUnderAPlainHashIsAnotherBlock) {
  constexpr uint64_t kSeed = 0x6361636861;
  std::vector<TokenId> given(64, 5);
  given[26] = 0x4ad13d3f, given[27] = 1000;
  given[42] = 0x4340d811, given[43] = 2000;
  std::vector<TokenId> twin = given;
  twin[27]++, twin[43]--;
  for (const char* tenant : {"tenant", "other"}) {
    const BlockHash parent = kHasher.root(tenant);
    const auto plain = [&](const std::vector<TokenId>& tokens) {
      const uint64_t header[] = {parent.low, parent.high, tokens.size()};
      std::string text(reinterpret_cast<const char*>(header), sizeof(header));
      text.append(reinterpret_cast<const char*>(tokens.data()), tokens.size() * sizeof(TokenId));
      return XXH3_128bits_withSeed(text.data(), text.size(), kSeed);
    };
    ASSERT_TRUE(XXH128_isEqual(plain(given), plain(twin))) << "the recipe itself";
    EXPECT_NE(kHasher.chained(parent, given, 64), kHasher.chained(parent, twin, 64));
  }
}

TEST(BlockHash, ASaltCannotPoseAsABlock) {
  const std::vector<TokenId> tokens = {1, 2, 3, 4};
  const uint64_t header[] = {kRoot.low, kRoot.high, 4};
  std::string salt(reinterpret_cast<const char*>(header), sizeof(header));
  salt.append(reinterpret_cast<const char*>(tokens.data()), tokens.size() * sizeof(TokenId));
  EXPECT_NE(kHasher.root(salt), kHasher.chained(kRoot, tokens, 4));
}

TEST(BlockHash, NeighbouringInputsSpreadOverBothHalves) {
  std::set<uint64_t> low, high;
  for (TokenId token = 0; token < 10'000; token++) {
    const std::vector<TokenId> tokens(64, token);
    const BlockHash hash = kHasher.chained(kRoot, tokens, 64);
    low.insert(hash.low);
    high.insert(hash.high);
  }
  EXPECT_EQ(low.size(), 10'000u);
  EXPECT_EQ(high.size(), 10'000u);
}

BlockHash name(uint64_t number) {
  return {.low = number, .high = ~number};
}

TEST(BlockPool, TakesEveryBlockOnce) {
  BlockPool pool(5);
  std::vector<bool> taken(5);
  for (int count = 0; count < 5; count++) {
    const BlockId block = pool.take();
    EXPECT_FALSE(taken.at(block));
    taken.at(block) = true;
  }
  EXPECT_EQ(pool.num_idle(), 0);
  EXPECT_DEATH(pool.take(), "all 5 blocks are held");
}

TEST(BlockPool, ASharedBlockIsHeldUntilItsLastRelease) {
  BlockPool pool(2);
  const BlockId block = pool.take();
  pool.add_reference(block);
  pool.release(block);
  EXPECT_EQ(pool.num_held(), 1);
  pool.release(block);
  EXPECT_EQ(pool.num_held(), 0);
  EXPECT_DEATH(pool.release(block), "nobody holds it");
}

TEST(BlockPool, ReusesEmptyBlocksFirstThenTheLongestUnusedCachedOne) {
  BlockPool pool(4);
  const BlockId first = pool.take(), second = pool.take(), third = pool.take(), fourth = pool.take();
  pool.publish(first, name(1));
  pool.publish(second, name(2));
  pool.publish(third, name(3));
  pool.release(third);
  pool.release(first);
  pool.release(second);
  pool.release(fourth);
  EXPECT_EQ(pool.take(), fourth);
  EXPECT_EQ(pool.take(), third);
  EXPECT_FALSE(pool.find(name(3)));
  pool.add_reference(first);  // used again: now the second has been idle longest
  pool.release(first);
  EXPECT_EQ(pool.take(), second);
  EXPECT_EQ(pool.find(name(1)), first);
  EXPECT_EQ(pool.take(), first);
  EXPECT_FALSE(pool.find(name(1)));
  EXPECT_TRUE(check_integrity(pool));
}

TEST(BlockPool, OfEqualContentsTheFirstIsNamed) {
  BlockPool pool(2);
  const BlockId first = pool.take(), second = pool.take();
  pool.publish(first, name(1));
  pool.publish(second, name(1));
  EXPECT_EQ(pool.find(name(1)), first);
  pool.release(second);
  EXPECT_EQ(pool.take(), second);
  EXPECT_EQ(pool.find(name(1)), first);
  EXPECT_TRUE(check_integrity(pool));
}

// Against a model as plain as can be: a list of idle blocks, and a map of names.
TEST(BlockPool, AgreesWithAPlainModelOverRandomUse) {
  constexpr int kBlocks = 12;
  std::mt19937 random(1);
  BlockPool pool(kBlocks);
  std::deque<BlockId> idle;
  for (BlockId block = 0; block < kBlocks; block++) idle.push_back(block);
  std::map<uint64_t, BlockId> names;
  std::map<BlockId, uint64_t> name_of;
  std::vector<BlockId> held;  // once a reference
  for (int turn = 0; turn < 20'000; turn++) {
    const uint64_t number = random() % 20;
    switch (random() % 4) {
      case 0: {
        if (idle.empty()) break;
        const BlockId block = pool.take();
        ASSERT_EQ(block, idle.front());
        idle.pop_front();
        if (name_of.contains(block)) names.erase(name_of[block]), name_of.erase(block);
        held.push_back(block);
        break;
      }
      case 1: {
        if (held.empty()) break;
        std::swap(held[random() % held.size()], held.back());
        const BlockId block = held.back();
        held.pop_back();
        pool.release(block);
        if (std::ranges::find(held, block) == held.end())
          name_of.contains(block) ? idle.push_back(block) : idle.push_front(block);
        break;
      }
      case 2: {
        if (held.empty() || name_of.contains(held.back())) break;
        pool.publish(held.back(), name(number));
        if (names.emplace(number, held.back()).second) name_of[held.back()] = number;
        break;
      }
      default: {
        const std::optional<BlockId> found = pool.find(name(number));
        ASSERT_EQ(found.has_value(), names.contains(number));
        if (!found) break;
        ASSERT_EQ(*found, names[number]);
        pool.add_reference(*found);
        std::erase(idle, *found);
        held.push_back(*found);
      }
    }
    ASSERT_EQ(pool.num_idle(), static_cast<int>(idle.size()));
    if (turn % 50 == 0) {
      const Status status = check_integrity(pool);
      ASSERT_TRUE(status) << status.error().message;
    }
  }
}

}  // namespace

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
  EXPECT_TRUE(check_integrity(cache.pool()));
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
