#include "router/prefix_affinity.h"

#include <gmock/gmock.h>

#include <string>

namespace cachalot::router {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

std::string text(char letter, size_t size) {
  return std::string(size, letter);
}

TEST(Prefixes, HaveDoubledLengthsUpToTheLongest) {
  EXPECT_THAT(prefixes_of(text('a', 255)), IsEmpty());
  const auto prefixes = prefixes_of(text('a', 1100));
  ASSERT_EQ(prefixes.size(), 3u);
  EXPECT_EQ(prefixes[0].num_bytes, 256u);
  EXPECT_EQ(prefixes[2].num_bytes, 1024u);
  EXPECT_EQ(prefixes_of(text('a', 1 << 20)).back().num_bytes, Prefix::kLongest);
}

TEST(PrefixAffinity, KnowsTheLongestCommonBeginning) {
  PrefixAffinity affinity(100);
  affinity.remember(prefixes_of(text('a', 600) + text('b', 600)), 1);
  EXPECT_THAT(affinity.known_bytes(prefixes_of(text('a', 600) + text('c', 600)), 3), ElementsAre(0, 512, 0));
  EXPECT_THAT(affinity.known_bytes(prefixes_of(text('a', 600) + text('b', 900)), 3), ElementsAre(0, 1024, 0));
  EXPECT_THAT(affinity.known_bytes(prefixes_of(text('x', 600)), 3), ElementsAre(0, 0, 0));
}

TEST(PrefixAffinity, TheLastReplicaToSeeABeginningHasIt) {
  PrefixAffinity affinity(100);
  affinity.remember(prefixes_of(text('a', 1024)), 0);
  affinity.remember(prefixes_of(text('a', 512) + text('b', 512)), 2);
  // The longer beginning is still where it was.
  EXPECT_THAT(affinity.known_bytes(prefixes_of(text('a', 1024)), 3), ElementsAre(1024, 0, 512));
}

TEST(PrefixAffinity, ForgetsWhatWasUsedLongestAgo) {
  PrefixAffinity affinity(2);
  const auto a = prefixes_of(text('a', 256)), b = prefixes_of(text('b', 256)), c = prefixes_of(text('c', 256));
  affinity.remember(a, 0);
  affinity.remember(b, 0);
  affinity.remember(a, 0);
  affinity.remember(c, 0);
  EXPECT_EQ(affinity.size(), 2u);
  EXPECT_THAT(affinity.known_bytes(a, 1), ElementsAre(256));
  EXPECT_THAT(affinity.known_bytes(b, 1), ElementsAre(0));
  EXPECT_THAT(affinity.known_bytes(c, 1), ElementsAre(256));
}

TEST(PrefixAffinity, ForgetsAReplicaThatWentAway) {
  PrefixAffinity affinity(100);
  affinity.remember(prefixes_of(text('a', 512)), 0);
  affinity.remember(prefixes_of(text('b', 512)), 1);
  affinity.forget(0);
  EXPECT_THAT(affinity.known_bytes(prefixes_of(text('a', 512)), 2), ElementsAre(0, 0));
  EXPECT_THAT(affinity.known_bytes(prefixes_of(text('b', 512)), 2), ElementsAre(0, 512));
}

TEST(PrefixAffinity, OfNoEntriesRemembersNothing) {
  PrefixAffinity affinity(0);
  affinity.remember(prefixes_of(text('a', 512)), 0);
  EXPECT_EQ(affinity.size(), 0u);
}

}  // namespace
}  // namespace cachalot::router
