#include "cli/bench_ranks.h"

#include <gmock/gmock.h>

namespace cachalot {
namespace {

using testing::AllOf;
using testing::HasSubstr;

const LaunchedRank kLaunched{.variables = "PMI_RANK and PMI_SIZE",
                             .rank = 3,
                             .size = 8,
                             .local_size = 8,
                             .address = "127.0.0.1",
                             .port = 21'000};

std::string error_of(const BenchRanksOptions& options, const std::optional<LaunchedRank>& launched) {
  const auto place = find_bench_place(options, launched, 2);
  return place ? "none" : place.error().message;
}

TEST(BenchPlace, StartsAllRanksWhereNobodyElseDoes) {
  const BenchPlace place = find_bench_place({.ranks = 8}, std::nullopt, 2).value();
  EXPECT_TRUE(place.starts_others);
  EXPECT_EQ(place.rank, 0);
  EXPECT_EQ(place.size, 8);
  EXPECT_EQ(place.local_size, 8);
}

TEST(BenchPlace, HasARankACoreByDefault) {
  EXPECT_EQ(find_bench_place({}, std::nullopt, 16)->size, 16);
  EXPECT_EQ(find_bench_place({}, std::nullopt, 1)->size, 2);
}

TEST(BenchPlace, IsWhereMpirunSays) {
  const BenchPlace place = find_bench_place({}, kLaunched, 2).value();
  EXPECT_FALSE(place.starts_others);
  EXPECT_EQ(place.rank, 3);
  EXPECT_EQ(place.size, 8);
  EXPECT_EQ(place.address, "127.0.0.1");
  EXPECT_EQ(place.port, 21'000);
}

TEST(BenchPlace, FlagsSayWhereRanksMeet) {
  const BenchPlace place = find_bench_place({.address = "10.0.0.1", .port = 4000}, kLaunched, 2).value();
  EXPECT_EQ(place.address, "10.0.0.1");
  EXPECT_EQ(place.port, 4000);
}

TEST(BenchPlace, AProcessThatMpirunStartedAloneMayStartOthers) {
  const LaunchedRank alone{.variables = "SLURM_PROCID and SLURM_NTASKS", .size = 1, .address = "127.0.0.1"};
  EXPECT_FALSE(find_bench_place({}, alone, 2)->starts_others);
  EXPECT_EQ(find_bench_place({}, alone, 2)->size, 1);
  EXPECT_TRUE(find_bench_place({.ranks = 4}, alone, 2)->starts_others);
  const BenchPlace started = find_bench_place({.ranks = 4, .rank = 2}, alone, 2).value();
  EXPECT_FALSE(started.starts_others);
  EXPECT_EQ(started.rank, 2);
}

TEST(BenchPlace, FlagsThatContradictMpirunAreRefused) {
  EXPECT_EQ(error_of({.ranks = 8}, kLaunched), "none");
  EXPECT_THAT(error_of({.ranks = 4}, kLaunched), AllOf(HasSubstr("--ranks 4"), HasSubstr("PMI_SIZE"), HasSubstr("8")));
  EXPECT_THAT(error_of({.ranks = 8, .rank = 0}, kLaunched), AllOf(HasSubstr("--rank 0"), HasSubstr("say 3")));
}

TEST(BenchPlace, RanksOfSeveralNodesNeedAnAddress) {
  LaunchedRank launched = kLaunched;
  launched.address.clear();
  EXPECT_THAT(error_of({}, launched), HasSubstr("--data-parallel-address"));
  EXPECT_EQ(error_of({.address = "10.0.0.1"}, launched), "none");
}

TEST(BenchPlace, ARankOutsideTheRanksIsRefused) {
  EXPECT_THAT(error_of({.ranks = 4, .rank = 4}, std::nullopt), HasSubstr("0 to 3"));
  EXPECT_THAT(error_of({.rank = 1}, std::nullopt), HasSubstr("--ranks"));
}

}  // namespace
}  // namespace cachalot
