#include "cache/block_hash.h"

#include <gtest/gtest.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <set>
#include <string>
#include <vector>

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

}  // namespace
}  // namespace cachalot
