#include "comm/expert_exchange.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <numeric>
#include <random>
#include <set>
#include <thread>

#include "comm/local_mesh_test_util.h"

namespace cachalot {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using Meshes = std::vector<std::unique_ptr<Mesh>>;

SharedPlacement evenly(int num_experts, int num_ranks) {
  return std::make_shared<const ExpertPlacement>(
      even_placement({.num_layers = 1, .num_experts = num_experts, .num_ranks = num_ranks}));
}

// R1 on 8 x 4 ranks, 2048 tokens a step and replica.
ExchangeShape r1_on_32() {
  return {.placement = evenly(256, 32),
          .top_k = 8,
          .hidden_size = 7168,
          .compute_dtype = DType::kBF16,
          .row_bytes = 14336,
          .max_rows = 512};
}

TEST(DispatchMessage, PutsRowsBehindTheHeaderAndSlotsBehindTheRows) {
  const DispatchMessage message{.num_rows = 3, .row_bytes = 100, .top_k = 8};
  EXPECT_EQ(message.rows_offset(), 64);
  EXPECT_EQ(message.slots_offset(), 64 + 300);
  EXPECT_EQ(message.bytes(), 64 + 300 + 3 * 8 * 2);
  const DispatchMessage none{.num_rows = 0, .row_bytes = 100, .top_k = 8};
  EXPECT_EQ(none.bytes(), 64);
}

TEST(ExchangeLayout, HasRoomForTwiceWhatEvenlySpreadExpertsBring) {
  const ExchangeLayout layout(r1_on_32());
  EXPECT_EQ(layout.pairs_per_peer, 2 * 512 * 8 / 32);
  EXPECT_EQ(layout.rows_per_peer, 256);
  EXPECT_EQ(layout.max_arrived_rows(), 256 * 32);
  EXPECT_EQ(layout.max_arrived_pairs(), 256 * 32);
  EXPECT_EQ(layout.message_bytes() % 64, 0);
  EXPECT_GE(layout.message_bytes(), 64 + 256 * (14336 + 16));
  EXPECT_EQ(layout.results_bytes(), (256 * 32 + 512 * 8) * 14336);
}

TEST(ExchangeLayout, NeverAsksForMoreThanCanCome) {
  ExchangeShape shape = r1_on_32();
  shape.max_rows = 4;  // at most 4 rows with 8 experts each
  const ExchangeLayout few(shape);
  EXPECT_EQ(few.rows_per_peer, 4);
  EXPECT_EQ(few.pairs_per_peer, 32);
  shape.placement = evenly(64, 32);  // two a rank: a row has at most two pairs there
  EXPECT_EQ(ExchangeLayout(shape).pairs_per_peer, 8);
}

TEST(ExchangeLayout, OneRankHasOnlyItsResults) {
  ExchangeShape shape = r1_on_32();
  shape.placement = evenly(256, 1);
  shape.max_bytes = 1;
  const ExchangeLayout layout(shape);
  EXPECT_EQ(layout.max_arrived_rows(), 512);
  EXPECT_EQ(layout.max_arrived_pairs(), 512 * 8);
  EXPECT_EQ(layout.bytes(), 512 * 8 * 14336);
}

TEST(ExchangeLayout, StaysWithinItsBoundAndAlwaysTakesOneRow) {
  ExchangeShape shape = r1_on_32();
  for (const int64_t max_bytes : {int64_t{1}, int64_t{16} << 20, int64_t{128} << 20}) {
    shape.max_bytes = max_bytes;
    const ExchangeLayout layout(shape);
    if (max_bytes == 1) {  // too little for a row and its pairs from everyone: the least there is
      EXPECT_EQ(layout.rows_per_peer, 1);
      EXPECT_EQ(layout.pairs_per_peer, 8);
    } else {
      EXPECT_LE(layout.sent_bytes(), max_bytes);
      EXPECT_LE(layout.arrived_bytes(), max_bytes);
      EXPECT_LE(layout.outgoing_rows() * 14336, max_bytes);
    }
  }
  // A bound above the rule changes nothing.
  shape.max_bytes = int64_t{1} << 40;
  EXPECT_EQ(ExchangeLayout(shape).bytes(), ExchangeLayout(r1_on_32()).bytes());
}

TEST(ExchangeLayout, SaysWhatItTakes) {
  EXPECT_EQ(
      ExchangeLayout(r1_on_32()).describe(),
      "expert exchange of 32 ranks with at most 8 experts each: at most 256 rows and 256 pairs from rank to rank in a "
      "pass, 112.1 MiB for rows to send, 112.1 MiB for rows that arrive, 168.0 MiB for results");
}

constexpr int kExperts = 24, kTopK = 3;
constexpr int64_t kHidden = 6, kMaxRows = 40, kRowBytes = kHidden * 4;

ExchangeShape shape_of(int num_ranks, int64_t max_bytes = 0) {
  return {.placement = evenly(kExperts, num_ranks),
          .top_k = kTopK,
          .hidden_size = kHidden,
          .compute_dtype = DType::kF32,
          .row_bytes = kRowBytes,
          .max_rows = kMaxRows,
          .max_bytes = max_bytes};
}

Meshes local_mesh(int num_ranks, const MeshOptions& options = {}) {
  auto meshes = make_local_mesh(num_ranks, options);
  CHECK(meshes, "{}", meshes.error().message);
  return std::move(*meshes);
}

std::unique_ptr<ExpertExchange> make_exchange(Mesh& mesh, const ExchangeShape& shape, std::span<const int> nodes = {}) {
  std::vector<int> members(static_cast<size_t>(mesh.size()));
  std::iota(members.begin(), members.end(), 0);
  auto exchange = ExpertExchange::create(mesh, std::move(members), ExchangeLayout(shape), nodes);
  CHECK(exchange, "{}", exchange.error().message);
  return std::move(*exchange);
}

template <class Body>
void on_ranks(Meshes& meshes, Body body) {
  std::vector<std::thread> threads;
  for (auto& mesh : meshes) threads.emplace_back([&body, &mesh] { body(*mesh); });
  for (std::thread& thread : threads) thread.join();
}

// One rank's tokens.
struct Tokens {
  std::vector<float> rows;
  std::vector<int32_t> ids;

  int64_t count() const { return std::ssize(ids) / kTopK; }
  DispatchRows dispatch_rows(int layer = 0) const {
    return {View<const std::byte, 2>(reinterpret_cast<const std::byte*>(rows.data()), count(), kRowBytes),
            View<const int32_t, 2>(ids.data(), count(), kTopK), layer};
  }
};

// Every number tells home, row and column apart. `expert_of` gives a slot's expert.
template <class ExpertOf>
Tokens make_tokens(int home, int64_t count, ExpertOf expert_of) {
  Tokens tokens;
  for (int64_t row = 0; row < count; row++) {
    for (int64_t col = 0; col < kHidden; col++) tokens.rows.push_back(static_cast<float>(home * 1000 + row * 10 + col));
    for (int slot = 0; slot < kTopK; slot++) tokens.ids.push_back(expert_of(row, slot));
  }
  return tokens;
}

Tokens random_tokens(int home, unsigned seed) {
  std::mt19937 random(seed * 1000 + static_cast<unsigned>(home));
  const auto count = static_cast<int64_t>(random() % 3 == 0 ? 0 : random() % (kMaxRows + 1));
  const unsigned spread = random() % 2 ? kExperts : 4;  // also: everything to a few experts
  int32_t first = 0;
  return make_tokens(home, count, [&](int64_t, int slot) {
    if (slot == 0) first = static_cast<int32_t>(random() % spread);
    return (first + slot * 5) % kExperts;
  });
}

// What expert e makes of x.
float expert_result(float x, int32_t expert) {
  return x * 100 + static_cast<float>(expert);
}

// The experts of one rank; gives the number of rows that arrived.
int64_t run_experts(ExpertExchange& exchange, int layer = 0) {
  int64_t num_rows = 0;
  for (ArrivedRows arrived;;) {
    const auto more = exchange.next(arrived);
    CHECK(more, "{}", more.error().message);
    if (!*more) return num_rows;
    num_rows += arrived.rows.extent(0);
    std::set<int32_t> rows_used, results_used;
    const View<float, 2> results = arrived.results.as<float>();
    const std::span<const int32_t> experts = exchange.own_slots(layer);
    EXPECT_EQ(arrived.offsets.size(), experts.size() + 1);
    for (size_t index = 0; index < experts.size(); index++) {
      for (int32_t pair = arrived.offsets[index]; pair < arrived.offsets[index + 1]; pair++) {
        const int32_t row = arrived.pair_rows(pair), result_row = arrived.result_rows(pair);
        rows_used.insert(row);
        EXPECT_TRUE(results_used.insert(result_row).second) << "two results in row " << result_row;
        const auto* x = reinterpret_cast<const float*>(arrived.rows.row(row));
        for (int64_t col = 0; col < kHidden; col++) results(result_row, col) = expert_result(x[col], experts[index]);
      }
    }
    EXPECT_EQ(std::ssize(results_used), arrived.pair_rows.extent(0));
    EXPECT_EQ(std::ssize(rows_used), arrived.rows.extent(0));  // each came for something, once
    EXPECT_LE(arrived.rows.extent(0), exchange.layout().max_arrived_rows());
    EXPECT_LE(arrived.pair_rows.extent(0), exchange.layout().max_arrived_pairs());
  }
}

void exchange_tokens(ExpertExchange& exchange, const Tokens& tokens, int layer = 0) {
  const Status dispatched = exchange.dispatch(tokens.dispatch_rows(layer), {"test"});
  ASSERT_TRUE(dispatched) << dispatched.error().message;
  run_experts(exchange, layer);
  const auto combined = exchange.combine();
  ASSERT_TRUE(combined) << combined.error().message;
  const View<float, 2> results = combined->results.as<float>();
  for (int64_t row = 0; row < tokens.count(); row++) {
    for (int64_t slot = 0; slot < kTopK; slot++) {
      for (int64_t col = 0; col < kHidden; col++) {
        ASSERT_EQ(results(combined->row_ids(row, slot), col),
                  expert_result(tokens.rows[static_cast<size_t>(row * kHidden + col)],
                                tokens.ids[static_cast<size_t>(row * kTopK + slot)]));
      }
    }
  }
}

struct Param {
  int num_ranks;
  int64_t max_bytes;
};

class RandomRoutings : public testing::TestWithParam<Param> {};

TEST_P(RandomRoutings, BringEveryRowToItsExpertsAndTheResultsHome) {
  const auto [num_ranks, max_bytes] = GetParam();
  Meshes meshes = local_mesh(num_ranks);
  on_ranks(meshes, [&](Mesh& mesh) {
    const auto exchange = make_exchange(mesh, shape_of(num_ranks, max_bytes));
    for (unsigned round = 0; round < 30; round++) exchange_tokens(*exchange, random_tokens(mesh.rank(), round));
    EXPECT_EQ(exchange->counters().num_exchanges, 30u);
    if (max_bytes == 1 && num_ranks > 1) {
      EXPECT_GT(exchange->counters().num_passes, 100u);
    }
    if (num_ranks == 1) {
      EXPECT_EQ(exchange->counters().num_passes, 30u);
    }
  });
}

INSTANTIATE_TEST_SUITE_P(All, RandomRoutings,
                         testing::Values(Param{1, 0}, Param{2, 0}, Param{2, 1}, Param{3, 0}, Param{3, 500}, Param{8, 0},
                                         Param{8, 1}, Param{24, 0}, Param{24, 1}, Param{5, 0}, Param{7, 1},
                                         Param{31, 0}),
                         [](const auto& info) {
                           return "ranks" + std::to_string(info.param.num_ranks) + "_bytes" +
                                  std::to_string(info.param.max_bytes);
                         });

// Copies, spare slots and ranks without any, otherwise in each layer.
SharedPlacement random_placement(int num_ranks, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<ExpertPlacement::Layer> layers(3, ExpertPlacement::Layer(static_cast<size_t>(num_ranks)));
  for (ExpertPlacement::Layer& ranks : layers) {
    for (int32_t expert = 0; expert < kExperts; expert++) {
      std::set<size_t> on;
      for (unsigned copies = 1 + random() % 3; copies > 0; copies--) on.insert(random() % ranks.size());
      for (const size_t rank : on) ranks[rank].push_back(expert);
    }
    ranks[random() % ranks.size()].push_back(ExpertPlacement::kSpare);
  }
  auto placement =
      ExpertPlacement::create({.num_layers = 3, .num_experts = kExperts, .num_ranks = num_ranks}, 1 + seed, layers);
  CHECK(placement, "{}", placement.error().message);
  return std::make_shared<const ExpertPlacement>(std::move(*placement));
}

TEST(ExpertExchange, BringsRowsToOneCopyOfEachExpertWhereverTheyAre) {
  for (const auto& [num_ranks, max_bytes] : {std::pair{2, 0}, {5, 0}, {5, 1}, {13, 0}}) {
    ExchangeShape shape = shape_of(num_ranks, max_bytes);
    shape.placement = random_placement(num_ranks, static_cast<unsigned>(num_ranks));
    std::vector<int> nodes;
    for (int rank = 0; rank < num_ranks; rank++) nodes.push_back(rank % 2);
    Meshes meshes = local_mesh(num_ranks);
    std::atomic<uint64_t> num_brought{0}, num_computed{0};
    on_ranks(meshes, [&](Mesh& mesh) {
      const auto exchange = make_exchange(mesh, shape, nodes);
      for (unsigned round = 0; round < 12; round++)
        exchange_tokens(*exchange, random_tokens(mesh.rank(), round), static_cast<int>(round % 3));
      num_brought += exchange->counters().rows_brought;
      num_computed += exchange->counters().expert_rows;
    });
    EXPECT_EQ(num_computed, num_brought * kTopK) << num_ranks << " ranks";
  }
}

TEST(ExpertExchange, ThoseWhoTakePartDoWithoutTheOthers) {
  constexpr int kRanks = 6;
  for (const int64_t max_bytes : {0, 1}) {
    for (const std::vector<int>& living : {std::vector{0, 2, 3}, {1, 5}, {4}}) {
      ExpertPlacement::Layer ranks(kRanks);
      for (int32_t expert = 0; expert < kExperts; expert++)
        ranks[static_cast<size_t>(living[static_cast<size_t>(expert) % living.size()])].push_back(expert);
      ExchangeShape shape = shape_of(kRanks, max_bytes);
      shape.placement = std::make_shared<const ExpertPlacement>(
          ExpertPlacement::create({.num_layers = 1, .num_experts = kExperts, .num_ranks = kRanks}, 2, {{ranks}})
              .value());
      Meshes all = local_mesh(kRanks, {.living = living}), meshes;
      for (const int rank : living) meshes.push_back(std::move(all[static_cast<size_t>(rank)]));
      on_ranks(meshes, [&](Mesh& mesh) {
        const auto exchange = make_exchange(mesh, shape);
        for (unsigned round = 0; round < 12; round++) exchange_tokens(*exchange, random_tokens(mesh.rank(), round));
      });
    }
  }
}

TEST(ExpertExchange, CountsHowOftenItsRowsChooseEachExpertOfEachLayer) {
  Meshes meshes = local_mesh(2);
  ExchangeShape shape = shape_of(2);
  shape.placement = random_placement(2, 3);
  on_ranks(meshes, [&](Mesh& mesh) {
    const auto exchange = make_exchange(mesh, shape);
    std::vector<uint64_t> counts(3 * kExperts), expected(3 * kExperts);
    exchange->count_choices(counts);
    for (const int layer : {0, 2, 2}) {
      const Tokens tokens = make_tokens(mesh.rank(), 7, [&](int64_t row, int slot) {
        return static_cast<int32_t>(row % 2 == 0 ? slot : 20 - mesh.rank() - slot);
      });
      for (const int32_t expert : tokens.ids) expected[static_cast<size_t>(layer * kExperts + expert)]++;
      exchange_tokens(*exchange, tokens, layer);
    }
    EXPECT_EQ(counts, expected);
  });
}

TEST(ExpertExchange, CountsRowsOncePerDestination) {
  constexpr int kRanks = 4;  // six experts each
  Meshes meshes = local_mesh(kRanks);
  on_ranks(meshes, [&](Mesh& mesh) {
    const auto exchange = make_exchange(mesh, shape_of(kRanks));
    // Rank 0: experts 0, 1 and 7, so once to itself and once to rank 1. Rank 3: all three of rank 2. The others: none.
    const int64_t count = mesh.rank() == 0 ? 5 : mesh.rank() == 3 ? 7 : 0;
    exchange_tokens(*exchange, make_tokens(mesh.rank(), count, [&](int64_t, int slot) {
      return mesh.rank() == 0 ? (slot == 2 ? 7 : slot) : 12 + slot;
    }));
    const auto& counters = exchange->counters();
    EXPECT_EQ(counters.rows_brought, static_cast<uint64_t>(count));
    const uint64_t sent[] = {5, 0, 0, 7}, received[] = {0, 5, 7, 0};
    EXPECT_EQ(counters.rows_sent, sent[mesh.rank()]);
    EXPECT_EQ(counters.rows_received, received[mesh.rank()]);
    EXPECT_EQ(counters.num_passes, 1u);
  });
}

// Everybody's tokens choose one rank's experts, in buffers for one row a peer: nobody but who has to takes more passes.
TEST(ExpertExchange, AllTokensToOneRankTakeAsManyPassesAsTheyNeed) {
  constexpr int kRanks = 3;
  Meshes meshes = local_mesh(kRanks);
  on_ranks(meshes, [&](Mesh& mesh) {
    const auto exchange = make_exchange(mesh, shape_of(kRanks, 1));
    ASSERT_EQ(exchange->layout().rows_per_peer, 1);
    const int64_t counts[] = {3, 10, 6};
    exchange_tokens(*exchange,
                    make_tokens(mesh.rank(), counts[mesh.rank()], [](int64_t, int slot) { return 8 + slot; }));
    // Rank 1 holds these experts: rank 0 is through after three passes, rank 2 after six, and rank 1's own ten rows
    // need ten, of which the others hear nothing.
    const uint64_t passes[] = {3, 10, 6};
    EXPECT_EQ(exchange->counters().num_passes, passes[mesh.rank()]);
    EXPECT_EQ(exchange->counters().rows_received, mesh.rank() == 1 ? 9u : 0u);
  });
}

TEST(ExpertExchange, TakesARowThatRepeatsAnExpert) {
  Meshes meshes = local_mesh(24);  // one expert each, and room for one row
  on_ranks(meshes, [&](Mesh& mesh) {
    const auto exchange = make_exchange(mesh, shape_of(24, 1));
    exchange_tokens(*exchange, make_tokens(mesh.rank(), 2, [](int64_t row, int) { return static_cast<int32_t>(row); }));
  });
}

TEST(ExpertExchange, SortsPairsByExpertHomeRowAndSlot) {
  constexpr int kRanks = 2;
  Meshes meshes = local_mesh(kRanks);
  on_ranks(meshes, [&](Mesh& mesh) {
    const auto exchange = make_exchange(mesh, shape_of(kRanks));
    const Tokens tokens = make_tokens(
        mesh.rank(), 4, [](int64_t row, int slot) { return static_cast<int32_t>((row + slot) % 2 * 12 + slot); });
    ASSERT_TRUE(exchange->dispatch(tokens.dispatch_rows(), {"test"}));
    ArrivedRows arrived;
    ASSERT_TRUE(exchange->next(arrived).value());
    for (size_t expert = 0; expert + 1 < arrived.offsets.size(); expert++) {
      float last = -1;
      for (int32_t pair = arrived.offsets[expert]; pair < arrived.offsets[expert + 1]; pair++) {
        const float first_number = *reinterpret_cast<const float*>(arrived.rows.row(arrived.pair_rows(pair)));
        EXPECT_GT(first_number, last);  // by home, then row
        last = first_number;
      }
    }
    ASSERT_FALSE(exchange->next(arrived).value());
    ASSERT_TRUE(exchange->combine());
  });
}

TEST(ExpertExchange, OneRankMovesNothing) {
  Meshes meshes = local_mesh(1);
  const auto exchange = make_exchange(*meshes[0], shape_of(1));
  const Tokens tokens = random_tokens(0, 1);
  ASSERT_TRUE(exchange->dispatch(tokens.dispatch_rows(), {"test"}));
  ArrivedRows arrived;
  ASSERT_TRUE(exchange->next(arrived).value());
  EXPECT_EQ(arrived.rows.data(), tokens.dispatch_rows().rows.data());
  ASSERT_FALSE(exchange->next(arrived).value());
  const auto combined = exchange->combine();
  ASSERT_TRUE(combined);
  EXPECT_EQ(combined->results.data(), arrived.results.data());
  for (int64_t slot = 0; slot < tokens.count() * kTopK; slot++) EXPECT_EQ(combined->row_ids.data()[slot], slot);
}

TEST(ExpertExchange, NamesTheRanksThatDoNotCome) {
  Meshes meshes = local_mesh(3, {.deadline = std::chrono::milliseconds(50)});
  on_ranks(meshes, [&](Mesh& mesh) {
    if (mesh.rank() == 1) return;
    const auto exchange = make_exchange(mesh, shape_of(3));
    const Tokens tokens = random_tokens(mesh.rank(), 1);
    const CollectiveSite site{.operation = "expert exchange", .step = 9, .layer = 4};
    ASSERT_TRUE(exchange->dispatch(tokens.dispatch_rows(), site));
    ArrivedRows arrived;
    const auto more = exchange->next(arrived);
    ASSERT_FALSE(more);
    EXPECT_THAT(more.error().message, HasSubstr("expert exchange (layer 4, step 9)"));
    EXPECT_FALSE(exchange->dispatch(tokens.dispatch_rows(), site));  // failed for good
  });
}

// Rank 1 speaks by hand.
void expect_refused(DispatchHeader header, size_t size, const char* reason) {
  Meshes meshes = local_mesh(2, {.epoch = 4});
  const auto exchange = make_exchange(*meshes[0], shape_of(2));
  std::vector<std::byte> message(size);
  std::memcpy(message.data(), &header, std::min(sizeof(header), size));
  SendOp send{.peer = 0, .data = message};
  meshes[1]->start(send);
  ASSERT_TRUE(meshes[1]->progress());
  ASSERT_TRUE(exchange->dispatch(Tokens{}.dispatch_rows(), {"expert exchange"}));
  ArrivedRows arrived;
  const auto more = exchange->next(arrived);
  ASSERT_FALSE(more) << reason;
  EXPECT_THAT(more.error().message, AllOf(HasSubstr("expert exchange"), HasSubstr("rank 1"), HasSubstr(reason)));
  EXPECT_TRUE(meshes[0]->failure());
}

TEST(ExpertExchange, RefusesMessagesThatContradictThemselvesOrTheExchange) {
  const DispatchHeader good{.home = 1,
                            .destination = 0,
                            .row_bytes = kRowBytes,
                            .top_k = kTopK,
                            .placement_version = 1,
                            .placement_hash = static_cast<uint32_t>(shape_of(2).placement->hash()),
                            .epoch = 4};
  expect_refused(good, 10, "another version");
  DispatchHeader header = good;
  header.magic_and_version++;
  expect_refused(header, 64, "another version");
  const char* kUnfit = "do not fit this exchange";
  header = good, header.placement_version = 7;
  expect_refused(header, 64, "by placement 7 (");
  header = good, header.placement_hash++;
  expect_refused(header, 64, "; here are placement 1 (");
  header = good, header.epoch = 3;
  expect_refused(header, 64, "of the experts in epoch 3; here are placement 1 (");
  header = good, header.epoch = 0;
  expect_refused(header, 64, "and epoch 4");
  header = good, header.home = 0;
  expect_refused(header, 64, kUnfit);
  header = good, header.pass = 1;
  expect_refused(header, 64, kUnfit);
  header = good, header.row_bytes = 8;
  expect_refused(header, 64, kUnfit);
  header = good, header.num_rows = 1;
  expect_refused(header, 64, kUnfit);
  header = good, header.num_pairs = 1;
  expect_refused(header, 64, "another number of pairs");
}

}  // namespace
}  // namespace cachalot
