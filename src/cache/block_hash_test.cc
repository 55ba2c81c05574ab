#include "cache/block_hash.h"

#include <gtest/gtest.h>

#include <set>
#include <string>
#include <vector>

namespace cachalot {
namespace {

const BlockHash kRoot = root_hash("tenant", 1);

TEST(BlockHash, EverythingThatDecidesTheContentsMatters) {
  const std::vector<TokenId> tokens = {1, 2, 3, 4}, other = {1, 2, 4, 3};
  const BlockHash base = chained_hash(kRoot, tokens, 4);
  EXPECT_EQ(chained_hash(kRoot, tokens, 4), base);
  EXPECT_NE(chained_hash(kRoot, other, 4), base) << "tokens";
  EXPECT_NE(chained_hash(kRoot, tokens, 3), base) << "roles";
  EXPECT_NE(chained_hash(base, tokens, 4), base) << "what comes before";
  EXPECT_NE(chained_hash(root_hash("other tenant", 1), tokens, 4), base) << "tenant";
  EXPECT_NE(chained_hash(root_hash("tenant", 2), tokens, 4), base) << "seed";
}

TEST(BlockHash, ASaltCannotPoseAsABlock) {
  const std::vector<TokenId> tokens = {1, 2, 3, 4};
  std::string salt(reinterpret_cast<const char*>(&kRoot), sizeof(kRoot));
  const uint64_t num_prompt_tokens = 4;
  salt.append(reinterpret_cast<const char*>(&num_prompt_tokens), sizeof(num_prompt_tokens));
  salt.append(reinterpret_cast<const char*>(tokens.data()), tokens.size() * sizeof(TokenId));
  EXPECT_NE(root_hash(salt, 0), chained_hash(kRoot, tokens, 4));
  EXPECT_NE(root_hash(salt, 1), chained_hash(kRoot, tokens, 4));
}

TEST(BlockHash, NeighbouringInputsSpreadOverBothHalves) {
  std::set<uint64_t> low, high;
  for (TokenId token = 0; token < 10'000; token++) {
    const std::vector<TokenId> tokens(64, token);
    const BlockHash hash = chained_hash(kRoot, tokens, 64);
    low.insert(hash.low);
    high.insert(hash.high);
  }
  EXPECT_EQ(low.size(), 10'000u);
  EXPECT_EQ(high.size(), 10'000u);
}

}  // namespace
}  // namespace cachalot
