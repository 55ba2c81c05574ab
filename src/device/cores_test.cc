#include "device/cores.h"

#include <gmock/gmock.h>

#include <set>

namespace cachalot {

namespace {

using testing::ElementsAre;
using testing::IsEmpty;

const std::vector<NumaDomain> kTwoDomains{{{0, 1, 2, 3}}, {{4, 5, 6, 7}}};

TEST(CoreShare, RanksTakeDomainsInTurnAndDivideTheirCores) {
  EXPECT_THAT(share_threads(kTwoDomains, 0, 4, 0).cores, ElementsAre(0, 1));
  EXPECT_THAT(share_threads(kTwoDomains, 1, 4, 0).cores, ElementsAre(4, 5));
  EXPECT_THAT(share_threads(kTwoDomains, 2, 4, 0).cores, ElementsAre(2, 3));
  EXPECT_THAT(share_threads(kTwoDomains, 3, 4, 0).cores, ElementsAre(6, 7));
}

TEST(CoreShare, NoCoreHasTwoRanksAndNoneIsForgotten) {
  for (int num_ranks = 2; num_ranks <= 8; num_ranks++) {
    std::multiset<int> taken;
    for (int rank = 0; rank < num_ranks; rank++) {
      for (const int core : share_threads(kTwoDomains, rank, num_ranks, 0).cores) taken.insert(core);
    }
    EXPECT_THAT(taken, ElementsAre(0, 1, 2, 3, 4, 5, 6, 7)) << num_ranks << " ranks";
  }
}

TEST(CoreShare, MoreRanksThanCoresShareThemUnpinned) {
  const ThreadPoolOptions options = share_threads({{{0, 1}}}, 17, 32, 0);
  EXPECT_EQ(options.num_threads, 1);
  EXPECT_THAT(options.cores, IsEmpty());
  EXPECT_EQ(options.spin_microseconds, 0);
}

TEST(CoreShare, ThisMachinesDomainsHoldItsCores) {
  const std::vector<int> cores = allowed_cores();
  std::vector<int> found;
  for (const NumaDomain& domain : numa_domains(cores))
    found.insert(found.end(), domain.cores.begin(), domain.cores.end());
  EXPECT_THAT(found, testing::UnorderedElementsAreArray(cores));
}

}  // namespace

}  // namespace cachalot
