#include "comm/group.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstring>
#include <numeric>
#include <random>
#include <thread>
#include <typeinfo>

#include "comm/local_mesh_test_util.h"

namespace cachalot {
namespace {

using testing::AllOf;
using testing::HasSubstr;

// body(mesh) on a thread a rank.
template <class Body>
void on_ranks(int num_ranks, const MeshOptions& options, Body body) {
  auto meshes = make_local_mesh(num_ranks, options);
  ASSERT_TRUE(meshes) << meshes.error().message;
  std::vector<std::thread> threads;
  for (auto& mesh : *meshes) threads.emplace_back([&body, &mesh] { body(*mesh); });
  for (std::thread& thread : threads) thread.join();
}

enum class Way { kMessages, kBoard };

// With kBoard what make_group() gives: groups of three or more have a board.
class GroupTest : public testing::TestWithParam<Way> {
 protected:
  static std::unique_ptr<Group> make(Mesh& mesh, std::vector<int> members, int64_t max_reduced_bytes = 0,
                                     int64_t max_summed_bytes = 0) {
    GroupOptions options{
        .members = std::move(members), .max_reduced_bytes = max_reduced_bytes, .max_summed_bytes = max_summed_bytes};
    if (GetParam() == Way::kBoard) return value_of(cachalot::make_group(mesh, std::move(options)));
    return value_of(make_message_group(mesh, std::move(options)));
  }
  template <class T>
  static void test_reduce_scatter(int num_ranks, int64_t num_rows);
  template <class T>
  static void test_all_reduce(int num_ranks, int64_t count);
  template <class SizeOf>
  static void test_all_to_all(int num_ranks, SizeOf size_of);

 private:
  template <class T>
  static T value_of(Result<T> result) {
    CHECK(result, "{}", result.error().message);
    return std::move(*result);
  }
};
INSTANTIATE_TEST_SUITE_P(Ways, GroupTest, testing::Values(Way::kMessages, Way::kBoard),
                         [](const auto& info) { return info.param == Way::kBoard ? "Board" : "Messages"; });

std::vector<int> all_ranks(const Mesh& mesh) {
  std::vector<int> ranks(static_cast<size_t>(mesh.size()));
  std::iota(ranks.begin(), ranks.end(), 0);
  return ranks;
}

template <class T>
std::span<std::byte> bytes(std::vector<T>& values) {
  return std::as_writable_bytes(std::span(values));
}

// A rank's numbers, whose sums depend on their order.
template <class T>
std::vector<T> numbers(int rank, int64_t count) {
  std::mt19937 random(static_cast<unsigned>(rank));
  std::vector<T> values;
  for (int64_t idx = 0; idx < count; idx++)
    values.push_back(static_cast<T>(std::exp(static_cast<float>(random() % 20)) * (random() % 2 ? 1.f : -1.f)));
  return values;
}

template <class T>
std::vector<float> sums_in_rank_order(int num_ranks, int64_t count) {
  std::vector<float> sums(static_cast<size_t>(count));
  for (int rank = 0; rank < num_ranks; rank++) {
    const std::vector<T> values = numbers<T>(rank, count);
    for (size_t idx = 0; idx < sums.size(); idx++) sums[idx] += static_cast<float>(values[idx]);
  }
  return sums;
}

template <class T>
void GroupTest::test_reduce_scatter(int num_ranks, int64_t num_rows) {
  constexpr int64_t kFeatures = 37;
  const std::vector<float> expected = sums_in_rank_order<T>(num_ranks, num_rows * kFeatures);
  on_ranks(num_ranks, {}, [&](Mesh& mesh) {
    const RowPartition partition(num_rows, num_ranks);
    const auto group = make(mesh, all_ranks(mesh), (num_rows / num_ranks + 1) * kFeatures * sizeof(T));
    std::vector<T> partial = numbers<T>(mesh.rank(), num_rows * kFeatures);
    const int64_t own_rows = partition.count(mesh.rank());
    std::vector<float> own(static_cast<size_t>(own_rows * kFeatures), -1.f);
    const Status status = group->reduce_scatter(ComputeView<2>(View<T, 2>(partial.data(), num_rows, kFeatures)),
                                                partition, View<float, 2>(own.data(), own_rows, kFeatures), {"test"});
    ASSERT_TRUE(status) << status.error().message;
    for (size_t idx = 0; idx < own.size(); idx++)
      ASSERT_EQ(own[idx], expected[static_cast<size_t>(partition.begin(mesh.rank()) * kFeatures) + idx]);
  });
}

TEST_P(GroupTest, ReduceScatterAddsInRankOrder) {
  for (const int num_ranks : {1, 2, 5, 8}) {
    for (const int64_t num_rows : {0, 3, 8, 70, 8'000}) {  // the last do not fit on a board
      test_reduce_scatter<float>(num_ranks, num_rows);
      test_reduce_scatter<bf16>(num_ranks, num_rows);
    }
  }
}

template <class T>
void GroupTest::test_all_reduce(int num_ranks, int64_t count) {
  const std::vector<float> expected = sums_in_rank_order<T>(num_ranks, count);
  on_ranks(num_ranks, {}, [&](Mesh& mesh) {
    const auto group = make(mesh, all_ranks(mesh), 0, count * sizeof(T));
    std::vector<T> values = numbers<T>(mesh.rank(), count);
    const Status status = group->all_reduce(ComputeView<1>(View<T, 1>(values.data(), count)), {"test"});
    ASSERT_TRUE(status) << status.error().message;
    for (size_t idx = 0; idx < values.size(); idx++)
      ASSERT_EQ(static_cast<float>(values[idx]), static_cast<float>(static_cast<T>(expected[idx])));
  });
}

TEST_P(GroupTest, AllReduceGivesEveryRankTheRoundedSum) {
  for (const int num_ranks : {1, 2, 3, 8}) {
    for (const int64_t count : {0, 1, 7168, 20'001, 270'003}) {  // the last do not fit on a board
      test_all_reduce<float>(num_ranks, count);
      test_all_reduce<bf16>(num_ranks, count);
    }
  }
}

TEST_P(GroupTest, FewValuesAreAddedUpByOneRank) {
  std::array<uint64_t, 4> sent{};
  on_ranks(4, {}, [&](Mesh& mesh) {
    const auto group = make(mesh, all_ranks(mesh), 0, 14336);
    std::vector<bf16> values(7168);
    ASSERT_TRUE(group->all_reduce(ComputeView<1>(View<bf16, 1>(values.data(), 7168)), {"test"}));
    sent[static_cast<size_t>(mesh.rank())] = mesh.traffic()[0].bytes_sent;
    EXPECT_EQ(mesh.traffic()[0].bytes_received, mesh.traffic()[0].bytes_sent);
  });
  EXPECT_THAT(sent, testing::UnorderedElementsAre(3 * 14336, 14336, 14336, 14336));
}

TEST_P(GroupTest, GathersRowsOfEveryRankAlsoInPlace) {
  constexpr int64_t kRows = 23, kBytes = 4000;
  for (const bool in_place : {false, true}) {
    on_ranks(4, {}, [&](Mesh& mesh) {
      const auto group = make(mesh, all_ranks(mesh));
      const RowPartition partition(kRows, 4);
      std::vector<uint8_t> all(kRows * kBytes, 255);
      const View<std::byte, 2> rows(bytes(all).data(), kRows, kBytes);
      std::vector<uint8_t> own(static_cast<size_t>(partition.count(mesh.rank()) * kBytes));
      const View<std::byte, 2> own_rows =
          in_place ? rows.rows(partition.begin(mesh.rank()), partition.count(mesh.rank()))
                   : View<std::byte, 2>(bytes(own).data(), partition.count(mesh.rank()), kBytes);
      for (int64_t row = 0; row < own_rows.extent(0); row++)
        std::memset(own_rows.row(row), static_cast<int>(partition.begin(mesh.rank()) + row), kBytes);
      ASSERT_TRUE(group->all_gather(own_rows, partition, rows, {"test"}));
      for (int64_t idx = 0; idx < kRows * kBytes; idx++) ASSERT_EQ(all[static_cast<size_t>(idx)], idx / kBytes);
    });
  }
}

TEST_P(GroupTest, GathersColumnsOnTheRootAlone) {
  constexpr int64_t kRows = 9, kColumns = 11;
  on_ranks(3, {}, [&](Mesh& mesh) {
    const auto group = make(mesh, all_ranks(mesh));
    const RowPartition columns(kColumns, 3);
    std::vector<float> part(static_cast<size_t>(kRows * columns.count(mesh.rank())));
    const View<float, 2> part_view(part.data(), kRows, columns.count(mesh.rank()));
    for (int64_t row = 0; row < kRows; row++) {
      for (int64_t col = 0; col < part_view.extent(1); col++)
        part_view(row, col) = static_cast<float>(row * 100 + columns.begin(mesh.rank()) + col);
    }
    for (const int root : {0, 2}) {
      std::vector<float> all(kRows * kColumns);
      const View<float, 2> all_view =
          mesh.rank() == root ? View<float, 2>(all.data(), kRows, kColumns) : View<float, 2>();
      ASSERT_TRUE(group->gather_columns(part_view, columns, all_view, root, {"test"}));
      if (mesh.rank() != root) continue;
      for (int64_t row = 0; row < kRows; row++) {
        for (int64_t col = 0; col < kColumns; col++) ASSERT_EQ(all_view(row, col), static_cast<float>(row * 100 + col));
      }
    }
  });
}

template <class SizeOf>
void GroupTest::test_all_to_all(int num_ranks, SizeOf size_of) {
  const auto num_parts = static_cast<size_t>(num_ranks);
  on_ranks(num_ranks, {}, [&](Mesh& mesh) {
    const auto group = make(mesh, all_ranks(mesh));
    std::vector<std::vector<uint8_t>> out(num_parts), in(num_parts);
    std::vector<std::span<const std::byte>> sent;
    std::vector<std::span<std::byte>> received;
    uint64_t bytes_sent = 0;
    for (int peer = 0; peer < num_ranks; peer++) {
      auto& to = out[static_cast<size_t>(peer)];
      to.assign(size_of(mesh.rank(), peer), static_cast<uint8_t>(mesh.rank() * 16 + peer));
      in[static_cast<size_t>(peer)].resize(size_of(peer, mesh.rank()));
      sent.push_back(bytes(to));
      received.push_back(bytes(in[static_cast<size_t>(peer)]));
      if (peer != mesh.rank()) bytes_sent += to.size();
    }
    ASSERT_TRUE(group->all_to_all(sent, received, {"test"}));
    for (int peer = 0; peer < num_ranks; peer++)
      EXPECT_EQ(std::ranges::count(in[static_cast<size_t>(peer)], peer * 16 + mesh.rank()),
                std::ssize(in[static_cast<size_t>(peer)]));
    EXPECT_EQ(mesh.traffic()[0].bytes_sent, bytes_sent);
  });
}

TEST_P(GroupTest, AllToAllTakesOtherSizesForEveryPair) {
  test_all_to_all(5, [](int from, int to) { return static_cast<size_t>((from * 7 + to * 3) % 5) * 30'000; });
}

// On a board what rank 1 sends does not fit, and what the others send does.
TEST_P(GroupTest, AllToAllMixesWhatFitsASlotAndWhatDoesNot) {
  constexpr int kRanks = 3;
  const auto size_of = [](int from, int /*to*/) { return from == 1 ? size_t{700'000} : size_t{5'000}; };
  for (int round = 0; round < 3; round++) test_all_to_all(kRanks, size_of);
}

TEST_P(GroupTest, BroadcastsFromAnyRoot) {
  on_ranks(4, {}, [&](Mesh& mesh) {
    const auto group = make(mesh, all_ranks(mesh));
    for (int root = 0; root < 4; root++) {
      std::vector<int> data(1000, mesh.rank() == root ? root + 5 : 0);
      ASSERT_TRUE(group->broadcast(bytes(data), root, {"test"}));
      EXPECT_THAT(data, testing::Each(root + 5));
    }
  });
}

TEST_P(GroupTest, NobodyPassesABarrierBeforeTheLastHasCome) {
  std::atomic<int> arrived = 0;
  on_ranks(6, {}, [&](Mesh& mesh) {
    const auto group = make(mesh, all_ranks(mesh));
    for (int round = 1; round <= 20; round++) {
      if (mesh.rank() == round % 6) std::this_thread::sleep_for(std::chrono::milliseconds(1));
      arrived++;
      ASSERT_TRUE(group->barrier({"test"}));
      EXPECT_GE(arrived.load(), round * 6);
      ASSERT_TRUE(group->barrier({"test"}));
    }
  });
}

// Ranks 0, 2, 4 and 1, 3, 5 at the same time, the second in an order of their own.
TEST_P(GroupTest, GroupsOfAMeshAreApart) {
  on_ranks(6, {}, [&](Mesh& mesh) {
    const bool odd = mesh.rank() % 2 == 1;
    const auto group = make(mesh, odd ? std::vector<int>{5, 1, 3} : std::vector<int>{0, 2, 4}, 0, 400);
    ASSERT_EQ(group->size(), 3);
    for (int round = 0; round < 10; round++) {
      std::vector<float> values(100, static_cast<float>(mesh.rank()));
      ASSERT_TRUE(group->all_reduce(ComputeView<1>(View<float, 1>(values.data(), 100)), {"test"}));
      EXPECT_THAT(values, testing::Each(odd ? 9.f : 6.f));
      int32_t root_rank = mesh.rank();
      ASSERT_TRUE(group->broadcast(std::as_writable_bytes(std::span(&root_rank, 1)), 0, {"test"}));
      EXPECT_EQ(root_rank, odd ? 5 : 0);
    }
  });
}

TEST_P(GroupTest, NamesTheRanksThatDoNotCome) {
  on_ranks(3, {.deadline = std::chrono::milliseconds(50)}, [&](Mesh& mesh) {
    if (mesh.rank() == 2) return;
    const auto group = make(mesh, all_ranks(mesh));
    std::vector<std::byte> all(3);
    const auto gather = [&] {
      return group->all_gather(View<const std::byte, 2>(all.data(), 1, 1), RowPartition(3, 3),
                               View<std::byte, 2>(all.data(), 3, 1),
                               {.operation = "low-rank all-gather", .step = 7, .layer = 3});
    };
    const Status status = gather();
    ASSERT_FALSE(status);
    EXPECT_THAT(status.error().message, AllOf(HasSubstr("low-rank all-gather (layer 3, step 7)"), HasSubstr("rank 2")));
    EXPECT_EQ(gather().error().message, status.error().message);  // failed for good
  });
}

TEST_P(GroupTest, WakesWhoWaitsForARankThatGivesUp) {
  on_ranks(3, {}, [&](Mesh& mesh) {
    const auto group = make(mesh, all_ranks(mesh));
    ASSERT_TRUE(group->barrier({"test"}));
    if (mesh.rank() == 2) {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      mesh.abandon();
      return;
    }
    const auto before = std::chrono::steady_clock::now();
    const Status status = group->barrier({"test"});
    ASSERT_FALSE(status);
    EXPECT_THAT(status.error().message, HasSubstr("has closed its connections"));
    EXPECT_LT(std::chrono::steady_clock::now() - before, std::chrono::seconds(10));
  });
}

// Calls of many kinds and sizes one after the other, each checked, with ranks that dawdle.
TEST_P(GroupTest, CallsFollowEachOtherWithoutMixing) {
  constexpr int kRanks = 5, kRounds = 300;
  on_ranks(kRanks, {}, [&](Mesh& mesh) {
    const auto group = make(mesh, all_ranks(mesh), 4 * 4000 * 4, 4 * 4000 * 4);
    std::mt19937 common(7), own(static_cast<unsigned>(mesh.rank()));
    for (int round = 0; round < kRounds; round++) {
      if (own() % 20 == 0) std::this_thread::sleep_for(std::chrono::microseconds(own() % 300));
      const auto kind = common() % 4;
      const auto count = static_cast<int64_t>(common() % 16'000);
      const RowPartition partition(count, kRanks);
      const auto value = static_cast<float>(round + mesh.rank());
      if (kind == 0) {
        ASSERT_TRUE(group->barrier({"barrier"}));
      } else if (kind == 1) {
        std::vector<float> values(static_cast<size_t>(count), value);
        ASSERT_TRUE(group->all_reduce(ComputeView<1>(View<float, 1>(values.data(), count)), {"all-reduce"}));
        EXPECT_THAT(values, testing::Each(static_cast<float>(kRanks * round + 10)));
      } else if (kind == 2) {
        std::vector<float> all(static_cast<size_t>(count), -1.f);
        const View<std::byte, 2> rows(bytes(all).data(), count, sizeof(float));
        const int64_t begin = partition.begin(mesh.rank()), own_count = partition.count(mesh.rank());
        std::fill_n(all.begin() + begin, own_count, value);
        ASSERT_TRUE(group->all_gather(rows.rows(begin, own_count), partition, rows, {"all-gather"}));
        for (int rank = 0; rank < kRanks; rank++) {
          for (int64_t idx = partition.begin(rank); idx < partition.begin(rank + 1); idx++)
            ASSERT_EQ(all[static_cast<size_t>(idx)], static_cast<float>(round + rank));
        }
      } else {
        std::vector<float> partial(static_cast<size_t>(count), value), sums(partition.count(mesh.rank()));
        ASSERT_TRUE(group->reduce_scatter(ComputeView<2>(View<float, 2>(partial.data(), count, 1)), partition,
                                          View<float, 2>(sums.data(), std::ssize(sums), 1), {"reduce-scatter"}));
        EXPECT_THAT(sums, testing::Each(static_cast<float>(kRanks * round + 10)));
      }
    }
  });
}

TEST(BoardGroup, NamesWhoIsAtAnotherCall) {
  on_ranks(3, {.deadline = std::chrono::milliseconds(2000)}, [&](Mesh& mesh) {
    const auto group = cachalot::make_group(mesh, {.members = all_ranks(mesh)}).value();
    std::vector<std::byte> data(mesh.rank() == 1 ? 6 : 3);
    const int64_t num_rows = std::ssize(data);
    const RowPartition partition(num_rows, 3);
    const View<std::byte, 2> rows(data.data(), num_rows, 1);
    const Status status = group->all_gather(rows.rows(partition.begin(mesh.rank()), num_rows / 3), partition, rows,
                                            {.operation = "low-rank all-gather"});
    ASSERT_FALSE(status);
    EXPECT_THAT(status.error().message, AllOf(HasSubstr("low-rank all-gather"), HasSubstr("all-gather of 6 bytes"),
                                              HasSubstr("all-gather of 3 bytes")));
    EXPECT_EQ(mesh.failure()->message, status.error().message);
  });
}

// Groups of some ranks and of all, of which the first have the board.
TEST(BoardGroup, IsARanksFirstGroupOnly) {
  on_ranks(6, {}, [&](Mesh& mesh) {
    const bool odd = mesh.rank() % 2 == 1;
    const auto some =
        cachalot::make_group(mesh, {.members = odd ? std::vector<int>{1, 3, 5} : std::vector<int>{0, 2, 4}}).value();
    const auto all = cachalot::make_group(mesh, {.members = all_ranks(mesh), .max_summed_bytes = 400}).value();
    const auto messages = make_message_group(mesh, {.members = all_ranks(mesh)}).value();
    EXPECT_NE(typeid(*some), typeid(*messages));
    EXPECT_EQ(typeid(*all), typeid(*messages));
    for (int round = 0; round < 50; round++) {
      std::vector<float> values(100, static_cast<float>(mesh.rank()));
      ASSERT_TRUE(some->all_reduce(ComputeView<1>(View<float, 1>(values.data(), 100)), {"some"}));
      EXPECT_THAT(values, testing::Each(odd ? 9.f : 6.f));
      ASSERT_TRUE(all->all_reduce(ComputeView<1>(View<float, 1>(values.data(), 100)), {"all"}));
      EXPECT_THAT(values, testing::Each(45.f));
    }
  });
}

TEST(Board, NamesWhoIsMissingOrAllOthersIfNobodyPublishes) {
  auto meshes = make_local_mesh(3, {});
  ASSERT_TRUE(meshes) << meshes.error().message;
  std::vector<std::unique_ptr<Board>> boards;
  for (auto& mesh : *meshes) boards.push_back(mesh->make_board(all_ranks(*mesh)));
  for (auto& board : boards) board->begin_round();
  EXPECT_FALSE(boards[0]->arrive(1) || boards[1]->arrive(1));
  EXPECT_THAT(boards[0]->awaited(), testing::ElementsAre(2));
  EXPECT_TRUE(boards[2]->arrive(1));
  EXPECT_THAT(boards[0]->awaited(), testing::ElementsAre(1, 2));
  EXPECT_THAT(boards[1]->awaited(), testing::ElementsAre(0, 2));
}

TEST_P(GroupTest, RefusesAMessageOfAnotherSize) {
  on_ranks(2, {.deadline = std::chrono::milliseconds(2000)}, [&](Mesh& mesh) {
    const auto group = make(mesh, all_ranks(mesh));
    std::vector<std::byte> data(mesh.rank() == 0 ? 8 : 12);
    const Status status = group->broadcast(data, 0, {"plan"});
    if (mesh.rank() == 0) return;
    ASSERT_FALSE(status);
    EXPECT_THAT(status.error().message, AllOf(HasSubstr("plan"), HasSubstr("rank 0 sent 8 bytes, should be 12")));
  });
}

}  // namespace
}  // namespace cachalot
