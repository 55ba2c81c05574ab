#include "engine/epoch.h"

#include <gmock/gmock.h>

namespace cachalot {
namespace {

using testing::ElementsAre;

EpochRoles roles(int rank, const std::vector<int>& living) {
  return roles_in_epoch({.tensor_parallel_size = 2,
                         .tensor_parallel_rank = rank % 2,
                         .data_parallel_size = 3,
                         .data_parallel_rank = rank / 2,
                         .enable_expert_parallel = true},
                        living);
}

TEST(EpochRoles, LeadersSpeakForReplicasThatAreWhole) {
  const std::vector<int> all{0, 1, 2, 3, 4, 5};
  EXPECT_TRUE(roles(3, all).serves);
  EXPECT_THAT(roles(3, all).tensor_group, ElementsAre(2, 3));
  EXPECT_THAT(roles(3, all).speakers, ElementsAre(0, 2, 4));
}

TEST(EpochRoles, WhoseReplicaLacksARankSpeaksForItself) {
  const std::vector<int> living{0, 1, 3, 4};
  for (const int rank : {3, 4}) {
    EXPECT_FALSE(roles(rank, living).serves);
    EXPECT_THAT(roles(rank, living).tensor_group, ElementsAre(rank));
  }
  for (const int rank : living) EXPECT_THAT(roles(rank, living).speakers, ElementsAre(0, 3, 4));
  EXPECT_TRUE(roles(1, living).serves);
  EXPECT_THAT(roles(1, living).tensor_group, ElementsAre(0, 1));
}

}  // namespace
}  // namespace cachalot
