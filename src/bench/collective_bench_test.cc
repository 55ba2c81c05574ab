#include "bench/collective_bench.h"

#include <gmock/gmock.h>

#include <deque>
#include <functional>
#include <sstream>
#include <thread>

#include "bench/collectives.h"
#include "comm/local_mesh_test_util.h"

namespace cachalot {

namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using CollectiveResult = Result<std::unique_ptr<Collective>>;
using Create = std::function<CollectiveResult(Mesh&)>;

CollectiveBenchOptions sweep(uint64_t min_size, uint64_t max_size) {
  return {.min_size = min_size, .max_size = max_size, .step_factor = 4, .iterations = 3, .warmup = 1};
}

// The figures, which are the same on all ranks.
std::vector<CollectiveFigure> run_on(const std::vector<std::unique_ptr<Mesh>>& meshes,
                                     const CollectiveBenchOptions& options, const Create& create) {
  std::vector<std::vector<CollectiveFigure>> figures(meshes.size());
  {
    std::vector<std::jthread> threads;
    for (size_t rank = 0; rank < meshes.size(); rank++) {
      threads.emplace_back([&, rank] {
        const CollectiveResult collective = create(*meshes[rank]);
        ASSERT_TRUE(collective) << collective.error().message;
        const Status status =
            run_collective_bench(**collective, *meshes[rank], options,
                                 [&](const CollectiveFigure& figure) { figures[rank].push_back(figure); });
        EXPECT_TRUE(status) << status.error().message;
      });
    }
  }
  for (const auto& others : figures) {
    EXPECT_EQ(others.size(), figures[0].size());
    for (size_t idx = 0; idx < others.size(); idx++) EXPECT_EQ(others[idx].seconds, figures[0][idx].seconds);
  }
  return figures[0];
}

std::vector<CollectiveFigure> run_on_ranks(int num_ranks, const CollectiveBenchOptions& options, const Create& create) {
  return run_on(make_local_mesh(num_ranks).value(), options, create);
}

// Shared memory that changes a byte of every longer message.
class CorruptingTransport : public Transport {
 public:
  explicit CorruptingTransport(std::unique_ptr<Transport> inner) : inner_(std::move(inner)) {}
  std::string_view name() const override { return inner_->name(); }
  bool connects(int peer) const override { return inner_->connects(peer); }
  void start(SendOp& op) override {
    constexpr size_t kChanged = 201;  // within the row of a dispatch; the high byte of a bf16
    if (op.data.size() > kChanged) {
      sent_.emplace_back(op.data.begin(), op.data.end())[kChanged] ^= std::byte{0x10};
      op.data = sent_.back();
    }
    inner_->start(op);
  }
  void start(ReceiveOp& op) override { inner_->start(op); }
  Result<bool> progress() override { return inner_->progress(); }
  void await(std::span<const ReceiveOp> receives, bool any) override { inner_->await(receives, any); }
  Status prepare_sleep() override { return inner_->prepare_sleep(); }
  int event_fd() const override { return inner_->event_fd(); }
  void end_sleep() override { inner_->end_sleep(); }
  void close() override { inner_->close(); }

 private:
  std::unique_ptr<Transport> inner_;
  std::deque<std::vector<std::byte>> sent_;
};

std::vector<std::unique_ptr<Mesh>> corrupting_mesh() {
  auto shm = make_local_shm(2).value();
  std::vector<std::unique_ptr<Mesh>> meshes;
  for (int rank = 0; rank < 2; rank++) {
    std::vector<std::unique_ptr<Transport>> transports;
    transports.push_back(std::make_unique<CorruptingTransport>(std::move(shm[static_cast<size_t>(rank)])));
    meshes.push_back(Mesh::create({.rank = rank, .size = 2}, std::move(transports)).value());
  }
  return meshes;
}

void expect_right(const std::vector<CollectiveFigure>& figures) {
  for (const CollectiveFigure& figure : figures) {
    EXPECT_TRUE(figure.was_checked);
    EXPECT_EQ(figure.num_wrong, 0U) << figure.size.bytes << " bytes";
    EXPECT_GT(figure.seconds, 0);
  }
}

Create all_to_all(uint64_t max_size, uint64_t max_bytes = 0) {
  return [=](Mesh& mesh) -> CollectiveResult { return AllToAllCollective::create(mesh, max_size, max_bytes); };
}

Create all_reduce(const AllReduceCollective::Options& options) {
  return [=](Mesh& mesh) -> CollectiveResult { return AllReduceCollective::create(mesh, options); };
}

Create dispatch(const DispatchCollective::Options& options) {
  return [=](Mesh& mesh) -> CollectiveResult { return DispatchCollective::create(mesh, options); };
}

TEST(CollectiveBench, SizesGrowByAFactorOrAStep) {
  EXPECT_THAT((CollectiveBenchOptions{.min_size = 3, .max_size = 24}.sizes()), ElementsAre(3, 6, 12, 24));
  EXPECT_THAT((CollectiveBenchOptions{.min_size = 3, .max_size = 23}.sizes()), ElementsAre(3, 6, 12));
  EXPECT_THAT((CollectiveBenchOptions{.min_size = 5, .max_size = 5}.sizes()), ElementsAre(5));
  EXPECT_THAT((CollectiveBenchOptions{.min_size = 1, .max_size = 10, .step_size = 4}.sizes()), ElementsAre(1, 5, 9));
  const uint64_t most = ~uint64_t{0};
  EXPECT_THAT((CollectiveBenchOptions{.min_size = most / 2, .max_size = most}.sizes()),
              ElementsAre(most / 2, most / 2 * 2));
}

// Time and wrong results of its own, and no messages.
class FakeCollective : public Collective {
 public:
  explicit FakeCollective(std::vector<int> milliseconds) : milliseconds_(std::move(milliseconds)) {}
  std::string_view type() const override { return "fake"; }
  Result<CollectiveSize> set_size(uint64_t size) override { return CollectiveSize{.bytes = size, .count = 1}; }
  Status run() override {
    std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds_[num_runs_++ % milliseconds_.size()]));
    return {};
  }
  Result<uint64_t> check() override { return 7; }

 private:
  std::vector<int> milliseconds_;
  size_t num_runs_ = 0;
};

TEST(CollectiveBench, TimeIsTheMedianWithoutTheWarmUpAndWrongResultsAreAddedUp) {
  CollectiveBenchOptions options = sweep(8, 8);
  options.iterations = 5;
  options.checks = 2;
  const auto figures = run_on_ranks(2, options, [](Mesh&) -> CollectiveResult {
    return std::make_unique<FakeCollective>(std::vector<int>{300, 4, 4, 200, 4, 4});
  });
  ASSERT_EQ(figures.size(), 1U);
  EXPECT_GE(figures[0].seconds, 0.004);
  EXPECT_LT(figures[0].seconds, 0.1);
  EXPECT_EQ(figures[0].num_wrong, 28U);
  EXPECT_EQ(figures[0].bytes_sent, 0);
}

TEST(CollectiveBench, WithoutACheckNothingIsSaidOfResults) {
  CollectiveBenchOptions options = sweep(1024, 1024);
  options.checks = 0;
  EXPECT_FALSE(run_on_ranks(2, options, all_to_all(1024)).at(0).was_checked);
}

TEST(AllToAllCollective, IsRightAndSendsWhatNcclTestsCount) {
  const auto figures = run_on_ranks(4, sweep(1000, 64'000), all_to_all(64'000));
  expect_right(figures);
  ASSERT_EQ(figures.size(), 4U);
  EXPECT_EQ(figures[0].size.count, 250U);
  for (const CollectiveFigure& figure : figures)
    EXPECT_EQ(figure.bytes_sent, static_cast<double>(figure.size.bytes) * 3 / 4);
}

TEST(AllToAllCollective, GoesInPassesThroughASmallBuffer) {
  const auto figures = run_on_ranks(3, sweep(30'001, 30'001), all_to_all(30'001, 1024));
  expect_right(figures);
  EXPECT_EQ(figures.at(0).size.bytes, 30'000U);
  EXPECT_EQ(figures.at(0).bytes_sent, 20'000);
}

TEST(AllToAllCollective, RefusesSizesWithoutAByteForEveryRank) {
  auto meshes = make_local_mesh(3).value();
  EXPECT_THAT(AllToAllCollective::create(*meshes[0], 2, 0).error().message, HasSubstr("3 ranks"));
  EXPECT_THAT(AllToAllCollective::create(*meshes[0], 9, 2).error().message, HasSubstr("a buffer of 2 bytes"));
  EXPECT_THAT((*AllToAllCollective::create(*meshes[0], 9, 0))->set_size(2).error().message,
              HasSubstr("3 ranks need at least 3"));
}

TEST(AllReduceCollective, IsRightInBothTypesAndSendsWhatNcclTestsCount) {
  for (const DType dtype : {DType::kBF16, DType::kF32}) {
    const auto figures = run_on_ranks(4, sweep(1024, 65'536), all_reduce({.dtype = dtype, .max_size = 65'536}));
    expect_right(figures);
    ASSERT_EQ(figures.size(), 4U);
    EXPECT_EQ(figures[0].size.count, 1024 / dtype_size(dtype));
    for (const CollectiveFigure& figure : figures)
      EXPECT_EQ(figure.bytes_sent, static_cast<double>(figure.size.bytes) * 2 * 3 / 4);
  }
}

TEST(AllReduceCollective, GoesInPassesAndTakesFewerNumbersThanRanks) {
  expect_right(run_on_ranks(5, sweep(2, 8), all_reduce({.max_size = 8})));
  expect_right(run_on_ranks(3, sweep(10'001, 10'001), all_reduce({.max_size = 10'001, .max_bytes = 999})));
}

TEST(DispatchCollective, IsRightInBothRowTypesOnAnyNumberOfRanks) {
  using enum DispatchCollective::RowType;
  for (const auto row_type : {kInt8, kBF16}) {
    for (const int num_ranks : {1, 2, 8}) {
      const auto figures = run_on_ranks(num_ranks, sweep(1, 4), dispatch({.row_type = row_type, .max_rows = 4}));
      expect_right(figures);
      ASSERT_EQ(figures.size(), 2U);
      EXPECT_EQ(figures[1].size.count, 4U);
      EXPECT_EQ(figures[1].size.bytes, 4U * (row_type == kInt8 ? 7168 + 56 * 4 : 7168 * 2));
      EXPECT_EQ(figures[1].bytes_sent > 0, num_ranks > 1);
    }
  }
}

TEST(CollectiveBench, WhatAMessageLosesOnItsWayIsCountedAsWrong) {
  EXPECT_EQ(run_on(corrupting_mesh(), sweep(1000, 1000), all_to_all(1000)).at(0).num_wrong, 2U);
  // A sum that is wrong where it is made goes on to the other rank, whose copy is changed once more.
  EXPECT_GE(run_on(corrupting_mesh(), sweep(1000, 1000), all_reduce({.max_size = 1000})).at(0).num_wrong, 2U);
  // Of two ranks with a row each: both rows have a wrong word for each of their experts on the other side, and one
  // result of what comes back is wrong.
  const uint64_t num_wrong = run_on(corrupting_mesh(), sweep(1, 1), dispatch({.max_rows = 1})).at(0).num_wrong;
  EXPECT_GE(num_wrong, 4U);
  EXPECT_LE(num_wrong, 2U * (8 + 1));
}

// With a rank for each group of R1's experts, a row goes to four of them, and each expert has a result of 14336 bytes.
TEST(DispatchCollective, SendsEveryRowOnceToARankAndEveryResultBack) {
  const auto figures = run_on_ranks(8, sweep(64, 64), dispatch({.max_rows = 64}));
  const double bytes_of_row = figures.at(0).bytes_sent / 64;
  EXPECT_NEAR(bytes_of_row, 7. / 8 * (8 * 14'336 + 3.6 * 7400), 0.05 * 8 * 14'336);
}

TEST(DispatchCollective, GoesInPassesThroughASmallBuffer) {
  expect_right(run_on_ranks(2, sweep(48, 48), dispatch({.max_rows = 48, .max_bytes = 300'000})));
}

TEST(DispatchCollective, TakesAnyNumberOfRanksButNotAnyNumberOfRows) {
  EXPECT_TRUE(DispatchCollective::buffer_bytes(3, {.max_rows = 1}));
  EXPECT_THAT(DispatchCollective::buffer_bytes(2, {.max_rows = uint64_t{1} << 27}).error().message,
              HasSubstr("134217728 rows"));
}

using testing::Each;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::StartsWith;

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::istringstream stream(text);
  for (std::string part; std::getline(stream, part, separator);) {
    if (!part.empty()) parts.push_back(part);
  }
  return parts;
}

const CollectiveFigure kFigure{
    .size = {.bytes = 262'144, .count = 32'768}, .seconds = 126e-6, .bytes_sent = 229'376, .was_checked = true};

TEST(CollectiveTable, ARowHasTheColumnsOfNcclTestsWithWrongLast) {
  const CollectiveTable table{.name = "alltoall", .type = "uint8"};
  std::string row = table.row(kFigure);
  EXPECT_EQ(row.back(), '\n');
  row.pop_back();
  EXPECT_THAT(split(row, ' '), ElementsAre("262144", "32768", "uint8", "126.00", "2.081", "1.820", "0"));
}

TEST(CollectiveTable, AnUncheckedRowSaysSo) {
  CollectiveFigure figure = kFigure;
  figure.was_checked = false;
  EXPECT_EQ(split(split(CollectiveTable{.type = "int8"}.row(figure), '\n')[0], ' ').back(), "N/A");
}

TEST(CollectiveTable, AllOtherLinesStartWithAHash) {
  const CollectiveTable table{.name = "dispatch", .type = "int8", .size_unit = "rows"};
  const std::string header = table.header({{"one", 17, ""}, {"other", 18, "ucx"}}, {.min_size = 1, .max_size = 64});
  EXPECT_THAT(split(header, '\n'), Each(StartsWith("#")));
  EXPECT_THAT(header, HasSubstr("Rank   1 Pid      18 on other through ucx"));
  EXPECT_THAT(header, HasSubstr("(rows)"));
  EXPECT_THAT(split(CollectiveTable::footer({kFigure}), '\n'), Each(StartsWith("#")));
}

TEST(CollectiveTable, TheEndTellsWhetherAnythingWasWrong) {
  EXPECT_THAT(CollectiveTable::footer({kFigure, kFigure}), HasSubstr(": 0 OK"));
  CollectiveFigure wrong = kFigure;
  wrong.num_wrong = 3;
  EXPECT_THAT(CollectiveTable::footer({kFigure, wrong}), HasSubstr(": 3 FAILED"));
}

}  // namespace

}  // namespace cachalot
