#include <gtest/gtest.h>

#include <numeric>
#include <thread>

#include "comm/local/local_expert_exchange.h"
#include "comm/local/local_group.h"

namespace cachalot {
namespace {

constexpr std::chrono::milliseconds kDeadline{10'000};

// body(rank) on a thread a rank.
template <class Body>
void on_ranks(int num_ranks, Body body) {
  std::vector<std::thread> threads;
  for (int rank = 0; rank < num_ranks; rank++) threads.emplace_back([&body, rank] { body(rank); });
  for (std::thread& thread : threads) thread.join();
}

TEST(LocalGroup, ReduceScatterGivesEachRankItsRowsOfTheSum) {
  constexpr int kRanks = 4, kRows = 7, kFeatures = 5;
  LocalHub hub(kRanks, kDeadline);
  on_ranks(kRanks, [&](int rank) {
    LocalGroup group(hub, rank);
    std::vector<float> partial(kRows * kFeatures), own(kRows * kFeatures, -1.f);
    for (size_t idx = 0; idx < partial.size(); idx++) partial[idx] = static_cast<float>(idx) * static_cast<float>(rank + 1);
    const RowPartition partition(kRows, kRanks);
    const View<float, 2> own_rows(own.data(), partition.count(rank), kFeatures);
    ASSERT_TRUE(group.reduce_scatter(ComputeView<2>(View<float, 2>(partial.data(), kRows, kFeatures)), partition, own_rows, {"test"}));
    for (int64_t row = 0; row < own_rows.extent(0); row++) {
      for (int64_t col = 0; col < kFeatures; col++)
        EXPECT_EQ(own_rows(row, col), static_cast<float>((partition.begin(rank) + row) * kFeatures + col) * 10.f);
    }
  });
}

TEST(LocalGroup, GathersRowsAndColumnsInRankOrder) {
  constexpr int kRanks = 3, kRows = 5;
  LocalHub hub(kRanks, kDeadline);
  on_ranks(kRanks, [&](int rank) {
    LocalGroup group(hub, rank);
    const RowPartition partition(kRows, kRanks);
    std::vector<int32_t> own(static_cast<size_t>(partition.count(rank))), all(kRows);
    std::iota(own.begin(), own.end(), static_cast<int32_t>(partition.begin(rank)));
    ASSERT_TRUE(group.all_gather(View<const std::byte, 2>(reinterpret_cast<const std::byte*>(own.data()), own.size(), 4), partition,
                                 View<std::byte, 2>(reinterpret_cast<std::byte*>(all.data()), kRows, 4), {"test"}));
    EXPECT_EQ(all, (std::vector<int32_t>{0, 1, 2, 3, 4}));

    const std::vector<float> part(static_cast<size_t>(rank + 1), static_cast<float>(rank));
    std::vector<float> columns(6);
    ASSERT_TRUE(group.gather_columns(View<const float, 2>(part.data(), 1, rank + 1), View<float, 2>(columns.data(), 1, 6), {"test"}));
    EXPECT_EQ(columns, (std::vector<float>{0, 1, 1, 2, 2, 2}));
  });
}

TEST(LocalGroup, NamesTheRanksThatDoNotCome) {
  LocalHub hub(3, std::chrono::milliseconds(30));
  on_ranks(2, [&](int rank) {
    LocalGroup group(hub, rank);
    const Status status = group.barrier({.operation = "o_proj reduce-scatter", .step = 7, .layer = 3});
    ASSERT_FALSE(status);
    EXPECT_TRUE(status.error().code == ErrorCode::kDeadlineExceeded || status.error().code == ErrorCode::kUnavailable);
    EXPECT_NE(status.error().message.find("o_proj reduce-scatter"), std::string::npos) << status.error().message;
    if (status.error().code == ErrorCode::kDeadlineExceeded) {
      EXPECT_NE(status.error().message.find("ranks 2"), std::string::npos) << status.error().message;
    }
  });
  EXPECT_FALSE(LocalGroup(hub, 2).barrier({"late"}));
}

// An "expert" e turns a row x into x * 1000 + e; every home must get back exactly its own rows' results, however many ranks.
class ExchangeTest : public testing::TestWithParam<int> {};

TEST_P(ExchangeTest, BringsEveryRowToItsExpertsAndTheResultsHome) {
  constexpr int kExperts = 12, kTopK = 3, kHidden = 2;
  const int num_ranks = GetParam();
  LocalHub hub(num_ranks, kDeadline);
  std::vector<int64_t> arrived_rows(static_cast<size_t>(num_ranks));
  on_ranks(num_ranks, [&](int rank) {
    const ExpertExchangeLimits limits{kExperts, kTopK, kHidden, kHidden * 4, 16, DType::kF32};
    auto exchange = LocalExpertExchange::create(hub, rank, limits);
    ASSERT_TRUE(exchange);
    for (int round = 0; round < 3; round++) {
      const int num_rows = (rank + round) % 3 == 0 ? 0 : 2 + rank;
      std::vector<float> rows(static_cast<size_t>(num_rows * kHidden));
      std::vector<int32_t> ids(static_cast<size_t>(num_rows * kTopK));
      for (size_t idx = 0; idx < rows.size(); idx++) rows[idx] = static_cast<float>(rank * 100 + static_cast<int>(idx));
      for (int row = 0; row < num_rows; row++) {
        for (int slot = 0; slot < kTopK; slot++) ids[static_cast<size_t>(row * kTopK + slot)] = (rank * 5 + row * 7 + slot * (round + 1)) % kExperts;
      }
      ASSERT_TRUE((*exchange)->dispatch({View<const std::byte, 2>(reinterpret_cast<const std::byte*>(rows.data()), num_rows, kHidden * 4),
                                         View<const int32_t, 2>(ids.data(), num_rows, kTopK)},
                                        {"test"}));
      ArrivedRows arrived;
      for (;;) {
        const auto more = (*exchange)->next(arrived);
        ASSERT_TRUE(more);
        if (!*more) break;
        arrived_rows[static_cast<size_t>(rank)] += arrived.rows.extent(0);
        const View<float, 2> results = arrived.results.as<float>();
        for (int expert = 0; expert < (*exchange)->num_local_experts(); expert++) {
          for (int32_t pair = arrived.offsets[static_cast<size_t>(expert)]; pair < arrived.offsets[static_cast<size_t>(expert) + 1]; pair++) {
            const auto* row = reinterpret_cast<const float*>(arrived.rows.row(*arrived.pair_rows.row(pair)));
            for (int64_t col = 0; col < kHidden; col++)
              results(pair, col) = row[col] * 1000 + static_cast<float>((*exchange)->first_local_expert() + expert);
          }
        }
      }
      const auto combined = (*exchange)->combine();
      ASSERT_TRUE(combined);
      for (int64_t row = 0; row < num_rows; row++) {
        for (int64_t slot = 0; slot < kTopK; slot++) {
          for (int64_t col = 0; col < kHidden; col++) {
            EXPECT_EQ(combined->results.as<float>()(combined->row_ids(row, slot), col),
                      rows[static_cast<size_t>(row * kHidden + col)] * 1000 + static_cast<float>(ids[static_cast<size_t>(row * kTopK + slot)]));
          }
        }
      }
    }
  });
  // A row arrives once at a rank however many of its experts are there.
  const int64_t total = std::accumulate(arrived_rows.begin(), arrived_rows.end(), int64_t{0});
  EXPECT_GT(total, 0);
  if (num_ranks == 1) {
    EXPECT_EQ(total, 4);
  }
}

INSTANTIATE_TEST_SUITE_P(Ranks, ExchangeTest, testing::Values(1, 2, 3, 4, 12));

}  // namespace
}  // namespace cachalot
