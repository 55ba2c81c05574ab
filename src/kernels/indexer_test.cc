#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <vector>

#include "base/math.h"
#include "kernels/ops_test_util.h"

namespace cachalot {
namespace {

// ---- keys -----------------------------------------------------------------------------------------------------------

template <class T>
void test_keys(int64_t dim, int64_t rope_dim, RopePairs pairs) {
  SCOPED_TRACE(fmt::format("{} of {}, pairs {}", rope_dim, dim, static_cast<int>(pairs)));
  constexpr int64_t kRows = 23;
  Rows<float> keys = Rows<float>::random(kRows, dim, 1, 3), weight = Rows<float>::random(1, dim, 2),
              bias = Rows<float>::random(1, dim, 3), cos = Rows<float>::random(50, rope_dim / 2, 4),
              sin = Rows<float>::random(50, rope_dim / 2, 5);
  std::vector<int32_t> positions;
  std::vector<int64_t> slots;
  for (int32_t row = 0; row < kRows; row++) positions.push_back(row * 17 % 50), slots.push_back(row * 7 % kRows);
  const auto store = [&](const Ops& ops, int64_t begin, int64_t count) {
    Rows<T> cache(kRows, dim);
    ops.store_index_keys({.keys = keys.rows(begin, count),
                          .norm_weight = weight.row(0),
                          .norm_bias = bias.row(0),
                          .epsilon = 1e-6f,
                          .rope = {cos.view(), sin.view()},
                          .pairs = pairs,
                          .positions = View<const int32_t, 1>(positions.data() + begin, count),
                          .slots = View<const int64_t, 1>(slots.data() + begin, count),
                          .cache = ComputeView<2>(cache.view())});
    return cache;
  };
  expect_same_bits_everywhere(kRows, [&](const Ops& ops, int64_t begin, int64_t count) {
    Rows<T> cache = store(ops, begin, count);
    Bits bits;
    for (int64_t row = begin; row < begin + count; row++) bits.append(cache.row(slots[static_cast<size_t>(row)]));
    return bits;
  });

  Rows<T> cache = store(*TestOps(IsaLevel::kReference), 0, kRows);
  for (int64_t row = 0; row < kRows; row++) {
    std::vector<double> x;
    for (int64_t i = 0; i < dim; i++) x.push_back(static_cast<double>(keys.view()(row, i)));
    const double mean = std::accumulate(x.begin(), x.end(), 0.0) / static_cast<double>(dim);
    double variance = 0;
    for (const double value : x) variance += (value - mean) * (value - mean) / static_cast<double>(dim);
    for (int64_t i = 0; i < dim; i++) {
      double& value = x[static_cast<size_t>(i)];
      value = (value - mean) / std::sqrt(variance + 1e-6) * static_cast<double>(weight.view()(0, i)) +
              static_cast<double>(bias.view()(0, i));
    }
    std::vector<double> want = x;
    const bool halves = pairs == RopePairs::kHalves;
    for (int64_t pair = 0; pair < rope_dim / 2; pair++) {
      const auto one = static_cast<size_t>(halves ? pair : 2 * pair),
                 other = static_cast<size_t>(halves ? pair + rope_dim / 2 : 2 * pair + 1);
      const auto c = static_cast<double>(cos.view()(positions[static_cast<size_t>(row)], pair)),
                 s = static_cast<double>(sin.view()(positions[static_cast<size_t>(row)], pair));
      want[one] = x[one] * c - x[other] * s;
      want[other] = x[one] * s + x[other] * c;
    }
    for (int64_t i = 0; i < dim; i++)
      EXPECT_NEAR(static_cast<double>(static_cast<float>(cache.view()(slots[static_cast<size_t>(row)], i))),
                  want[static_cast<size_t>(i)],
                  sizeof(T) == 4 ? 1e-5 : 1e-2 * (1 + std::fabs(want[static_cast<size_t>(i)])));
  }
}

TEST(IndexKeys, AreNormalizedWithMeanAndBiasAndTheirFirstNumbersRotated) {
  for (const RopePairs pairs : {RopePairs::kHalves, RopePairs::kNeighbours}) {
    test_keys<float>(128, 64, pairs);
    test_keys<bf16>(128, 64, pairs);
    test_keys<float>(37, 22, pairs);
    test_keys<bf16>(16, 16, pairs);
  }
}

// ---- choice ---------------------------------------------------------------------------------------------------------

struct IndexerDims {
  int64_t heads, dim, topk;
};

// Rows of several sequences; a sequence's rows follow one another.
struct Rated {
  Rated(const IndexerDims& dims, std::vector<std::vector<int>> positions, int block_size, uint32_t seed)
      : dims(dims), block_size(block_size) {
    std::mt19937 random(seed);
    BlockId next_block = 0;
    for (const std::vector<int>& of_sequence : positions) {
      const int num_blocks = ceil_div(std::ranges::max(of_sequence) + 1, block_size);
      blocks.emplace_back(static_cast<size_t>(num_blocks));
      std::iota(blocks.back().rbegin(), blocks.back().rend(), next_block);  // falling
      next_block += num_blocks;
      for (const int position : of_sequence) rows.push_back({blocks.size() - 1, position});
    }
    keys = Rows<bf16>::random(int64_t{next_block} * block_size, dims.dim, seed);
    q = Rows<float>::random(std::ssize(rows), dims.heads * dims.dim, seed + 1);
    weights = Rows<float>::random(std::ssize(rows), dims.heads, seed + 2);
  }

  CachedContext context(size_t sequence) {
    return {.cache = ComputeView<2>(keys.view()), .blocks = blocks[sequence], .block_size = block_size};
  }
  std::vector<int32_t> choose(IsaLevel isa, int num_threads, int64_t begin, int64_t end) {
    OpsLimits limits = kTestLimits;
    limits.max_positions = 8192;
    const TestOps ops(isa, num_threads, limits);
    std::vector<ScoredRow> scored;
    for (int64_t row = begin; row < end; row++)
      scored.push_back({context(rows[static_cast<size_t>(row)].sequence), rows[static_cast<size_t>(row)].position});
    std::vector<int32_t> chosen(static_cast<size_t>((end - begin) * dims.topk), -1);
    ops->choose_positions(
        {.q = View<const float, 3>(q.rows(begin, end - begin).data(), end - begin, dims.heads, dims.dim),
         .head_weights = weights.rows(begin, end - begin),
         .weight_scale = 0.25f,
         .rows = scored,
         .chosen = View<int32_t, 2>(chosen.data(), end - begin, dims.topk)});
    return chosen;
  }
  std::vector<int32_t> choose(IsaLevel isa, int num_threads = 2) {
    return choose(isa, num_threads, 0, std::ssize(rows));
  }

  // By the rule of numbers, and sorting all.
  std::vector<int32_t> expected() {
    std::vector<int32_t> all;
    for (int64_t row = 0; row < std::ssize(rows); row++) {
      const auto [sequence, position] = rows[static_cast<size_t>(row)];
      std::vector<float> scores;
      for (int64_t at = 0; at <= position; at++) {
        const bf16* key = keys.row(context(sequence).slot(at)).data();
        float score = 0;
        for (int64_t head = 0; head < dims.heads; head++) {
          float dot = 0;
          for (int64_t d = 0; d < dims.dim; d++)
            dot = std::fma(q.view()(row, head * dims.dim + d), static_cast<float>(key[d]), dot);
          score = std::fma(weights.view()(row, head) * 0.25f, std::max(dot, 0.f), score);
        }
        scores.push_back(score);
      }
      std::vector<int32_t> order(scores.size());
      std::iota(order.begin(), order.end(), 0);
      std::ranges::stable_sort(
          order, [&](int32_t a, int32_t b) { return scores[static_cast<size_t>(a)] > scores[static_cast<size_t>(b)]; });
      order.resize(std::min(order.size(), static_cast<size_t>(dims.topk)));
      std::ranges::sort(order);
      order.resize(static_cast<size_t>(dims.topk), -1);
      all.insert(all.end(), order.begin(), order.end());
    }
    return all;
  }

  struct Row {
    size_t sequence;
    int position;
  };
  IndexerDims dims;
  int block_size;
  std::vector<std::vector<BlockId>> blocks;
  std::vector<Row> rows;
  Rows<bf16> keys{1, 1};
  Rows<float> q{1, 1}, weights{1, 1};
};

const std::vector<std::vector<int>> kSeveral{{0, 1, 2}, {15, 16, 17, 18, 63, 64, 65}, {700}, {40}, {1999, 2000}};

TEST(ChoosePositions, AreTheBestOnEveryLevelAndAnyThreads) {
  for (const IndexerDims& dims :
       {IndexerDims{8, 64, 16}, IndexerDims{64, 128, 40}, IndexerDims{3, 7, 1}, IndexerDims{13, 32, 100}})
    for (const int block_size : {1, 16, 64}) {
      Rated rated(dims, kSeveral, block_size, 1);
      const std::vector<int32_t> expected = rated.expected();
      for (const IsaLevel isa : levels_here())
        for (const int num_threads : {1, 3})
          EXPECT_EQ(rated.choose(isa, num_threads), expected)
              << isa_name(isa) << ", " << dims.heads << " heads, blocks of " << block_size;
    }
}

TEST(ChoosePositions, OfARowAreTheSameAloneAndAmongOthers) {
  std::vector<std::vector<int>> positions{{5000}, {}, {77, 78}};
  for (int position = 10; position < 90; position++) positions[1].push_back(position * 13);
  for (const IsaLevel isa : levels_here()) {
    Rated rated({8, 32, 24}, positions, 64, 2);
    const std::vector<int32_t> all = rated.choose(isa);
    for (const int64_t step : {1, 7, 50})
      for (int64_t begin = 0; begin < std::ssize(rated.rows); begin += step) {
        const int64_t end = std::min(begin + step, std::ssize(rated.rows));
        EXPECT_EQ(rated.choose(isa, 3, begin, end),
                  std::vector<int32_t>(all.begin() + begin * 24, all.begin() + end * 24))
            << isa_name(isa) << ", rows " << begin << " to " << end;
      }
  }
}

TEST(ChoosePositions, OfEqualScoresAreTheLowest) {
  for (const IsaLevel isa : levels_here()) {
    // No head sees anything: all scores are zeros, of either sign.
    Rated rated({4, 16, 20}, {{100, 130}}, 64, 3);
    std::ranges::fill_n(rated.q.view().data(), 2 * 4 * 16, 0.f);
    std::vector<int32_t> lowest(20);
    std::iota(lowest.begin(), lowest.end(), 0);
    const std::vector<int32_t> chosen = rated.choose(isa);
    EXPECT_THAT(std::vector(chosen.begin(), chosen.begin() + 20), testing::ContainerEq(lowest)) << isa_name(isa);
    EXPECT_THAT(std::vector(chosen.begin() + 20, chosen.end()), testing::ContainerEq(lowest)) << isa_name(isa);

    // One head, so that about half of all positions have a zero. A positive weight: the zeros fill what is left over; a
    // negative one: they come first.
    for (const float weight : {1.f, -1.f}) {
      Rated one({1, 16, 120}, {{199}}, 64, 4);
      one.weights.view()(0, 0) = weight;
      EXPECT_EQ(one.choose(isa), one.expected()) << isa_name(isa) << ", weight " << weight;
    }
    // Keys that repeat: every score several times.
    Rated repeated({8, 32, 50}, {{160, 161, 500}}, 64, 5);
    for (int64_t slot = 0; slot < 512; slot++)
      std::copy_n(repeated.keys.row(slot % 9).data(), 32, repeated.keys.row(slot).data());
    EXPECT_EQ(repeated.choose(isa), repeated.expected()) << isa_name(isa);
  }
}

// ---- attention over them --------------------------------------------------------------------------------------------

// Latents of a sequence, of which a row attends to all or to some.
struct Attending {
  static constexpr int64_t kHeads = 13, kLatent = 64, kRope = 24, kWidth = kLatent + kRope;

  explicit Attending(int64_t num_positions)
      : cache(Rows<bf16>::random(round_up(num_positions, int64_t{64}), kWidth, 1)),
        blocks(static_cast<size_t>(ceil_div(num_positions, int64_t{64}))),
        num_positions(num_positions) {
    std::iota(blocks.rbegin(), blocks.rend(), 0);
  }
  CachedContext context() { return {ComputeView<2>(cache.view()), blocks, 64}; }

  std::vector<float> attend(IsaLevel isa, int num_threads, const std::vector<int32_t>& chosen) {
    const TestOps ops(isa, num_threads);
    const AbsorbedRow row{context(), static_cast<int>(num_positions) - 1,
                          View<const int32_t, 1>(chosen.data(), chosen.size())};
    std::vector<float> out(kHeads * kLatent, NAN);
    ops->attend_absorbed({.q_latent = View<const float, 3>(q_latent.view().data(), 1, kHeads, kLatent),
                          .q_rope = View<const float, 3>(q_rope.view().data(), 1, kHeads, kRope),
                          .rows = {&row, 1},
                          .softmax_scale = 0.2f,
                          .out = View<float, 3>(out.data(), 1, kHeads, kLatent)});
    return out;
  }

  Rows<bf16> cache;
  std::vector<BlockId> blocks;
  int64_t num_positions;
  Rows<float> q_latent = Rows<float>::random(kHeads, kLatent, 2), q_rope = Rows<float>::random(kHeads, kRope, 3);
};

TEST(ChosenAttention, OverAllPositionsIsTheDenseOneToTheBit) {
  for (const int64_t num_positions : {1, 63, 64, 65, 512, 513, 2000}) {
    Attending attending(num_positions);
    std::vector<int32_t> all(static_cast<size_t>(num_positions));
    std::iota(all.begin(), all.end(), 0);
    for (const IsaLevel isa : levels_here())
      for (const int num_threads : {1, 3})
        EXPECT_EQ(attending.attend(isa, num_threads, all), attending.attend(isa, 1, {}))
            << isa_name(isa) << ", " << num_positions << " positions";
  }
}

TEST(ChosenAttention, TakesThePlacesOfADenseContextOfWhatIsChosen) {
  Attending attending(3000);
  for (const int64_t count : {1, 70, 512, 700}) {
    std::vector<int32_t> chosen;
    for (int64_t idx = 0; idx < count; idx++) chosen.push_back(static_cast<int32_t>(idx * 2999 / count));
    Attending compact(count);
    for (int64_t idx = 0; idx < count; idx++)
      std::copy_n(attending.cache.row(attending.context().slot(chosen[static_cast<size_t>(idx)])).data(),
                  Attending::kWidth, compact.cache.row(compact.context().slot(idx)).data());
    for (const IsaLevel isa : levels_here())
      EXPECT_EQ(attending.attend(isa, 2, chosen), compact.attend(isa, 2, {})) << isa_name(isa) << ", " << count;
  }
}

}  // namespace
}  // namespace cachalot
