#include <gmock/gmock.h>

#include <cmath>
#include <limits>

#include "base/math.h"
#include "kernels/ops_test_util.h"

namespace cachalot {
namespace {

// Whole vectors, tails of every kind, and enough rows for several threads.
struct Shape {
  int64_t num_rows, features;
};
const Shape kShapes[] = {{1, 1},  {2, 7},  {3, 8},   {3, 15},  {5, 16},   {2, 31},   {7, 33},
                         {4, 63}, {4, 65}, {3, 127}, {9, 320}, {2, 7168}, {70, 1000}};

struct Quantized {
  Quantized(int64_t num_rows, int64_t features, int group)
      : values(num_rows, features), scales(num_rows, ceil_div(features, group)), group(group) {}
  QuantizedRows view() { return {values.view(), scales.view(), group}; }
  void append_row(int64_t row, Bits& bits) {
    bits.append(values.row(row));
    bits.append(scales.row(row));
  }
  Rows<int8_t> values;
  Rows<float> scales;
  int group;
};

TEST(AddNorm, AddsInPlaceAndDividesByTheRootMeanSquare) {
  for (IsaLevel isa : levels_here()) {
    const TestOps ops(isa);
    Rows<float> residual = Rows<float>::random(3, 100, 1), delta = Rows<float>::random(3, 100, 2);
    Rows<float> before = residual, weight = Rows<float>::random(1, 100, 3), out(3, 100);
    ops->add_norm({.residual = residual.view(),
                   .delta = delta.view(),
                   .weight = weight.row(0),
                   .epsilon = 1e-3f,
                   .out = out.view()});
    for (int64_t row = 0; row < 3; row++) {
      double squares = 0;
      for (int64_t i = 0; i < 100; i++) {
        EXPECT_EQ(residual.view()(row, i), before.view()(row, i) + delta.view()(row, i));
        squares += std::pow(residual.view()(row, i), 2);
      }
      const double factor = 1 / std::sqrt(squares / 100 + 1e-3);
      for (int64_t i = 0; i < 100; i++) {
        const double expected = residual.view()(row, i) * factor * weight.view()(0, i);
        EXPECT_NEAR(out.view()(row, i), expected, 4e-7 * std::fabs(expected));
      }
    }
  }
}

TEST(AddNorm, HasTheSameBitsEverywhere) {
  for (const auto& [num_rows, features] : kShapes) {
    for (int group : {0, 32, 64}) {
      SCOPED_TRACE(fmt::format("{} x {}, group {}", num_rows, features, group));
      Rows<float> input = Rows<float>::random(num_rows, features, 1),
                  delta = Rows<float>::random(num_rows, features, 2);
      Rows<float> weight = Rows<float>::random(1, features, 3);
      expect_same_bits_everywhere(num_rows, [&](const Ops& ops, int64_t begin, int64_t count) {
        Bits bits;
        Rows<float> residual = input, out(count, features);
        Quantized quantized(count, features, std::max(group, 32));
        // With and without delta; floats, int8 rows, or both.
        const bool add = features % 2 == 0, floats = group != 64;
        ops.add_norm({.residual = residual.rows(begin, count),
                      .delta = add ? delta.rows(begin, count) : View<float, 2>(),
                      .weight = weight.row(0),
                      .epsilon = 1e-6f,
                      .out = floats ? out.view() : View<float, 2>(),
                      .quantized = group ? quantized.view() : QuantizedRows()});
        for (int64_t row = 0; row < count; row++) {
          bits.append(residual.row(begin + row));
          if (floats) bits.append(out.row(row));
          if (group) quantized.append_row(row, bits);
        }
        return bits;
      });
    }
  }
}

TEST(AddNorm, QuantizesEachGroupByItsLargestMagnitude) {
  for (IsaLevel isa : levels_here()) {
    const TestOps ops(isa);
    constexpr int64_t kFeatures = 75;  // groups of 32, 32 and 11
    Rows<float> residual = Rows<float>::random(1, kFeatures, 1), weight(1, kFeatures), out(1, kFeatures);
    for (int64_t i = 0; i < kFeatures; i++) weight.view()(0, i) = i / 32 == 1 ? 0.f : 1.f;  // a group of zeros
    Quantized quantized(1, kFeatures, 32);
    ops->add_norm(
        {.residual = residual.view(), .weight = weight.row(0), .out = out.view(), .quantized = quantized.view()});
    for (int64_t group = 0; group < 3; group++) {
      const int64_t begin = group * 32, end = std::min<int64_t>(begin + 32, kFeatures);
      float largest = 0;
      for (int64_t i = begin; i < end; i++) largest = std::max(largest, std::fabs(out.view()(0, i)));
      EXPECT_EQ(quantized.scales.view()(0, group), largest / 127);
      int most = 0;
      for (int64_t i = begin; i < end; i++) {
        const int value = quantized.values.view()(0, i);
        EXPECT_NEAR(out.view()(0, i), value * quantized.scales.view()(0, group),
                    0.5001 * quantized.scales.view()(0, group));
        most = std::max(most, std::abs(value));
      }
      EXPECT_EQ(most, group == 1 ? 0 : 127);
    }
  }
}

// Else a model whose numbers overflow would give an answer of nonsense in place of an error.
TEST(Quantize, AGroupWithANumberThatIsNoneSaysSoByItsScale) {
  constexpr int64_t kFeatures = 75;  // groups of 32, 32 and 11
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN(), kInfinity = std::numeric_limits<float>::infinity();
  for (IsaLevel isa : levels_here()) {
    const TestOps ops(isa);
    for (const float bad : {kNan, -kNan, kInfinity, -kInfinity}) {
      for (const int64_t place : {0, 15, 31, 40, 63, 64, 74}) {
        Rows<float> rows = Rows<float>::random(1, kFeatures, 1);
        Quantized before(1, kFeatures, 32), after(1, kFeatures, 32);
        ops->quantize(rows.view(), before.view());
        rows.view()(0, place) = bad;
        ops->quantize(rows.view(), after.view());
        for (int64_t group = 0; group < 3; group++) {
          const float scale = after.scales.view()(0, group);
          if (group == place / 32)
            EXPECT_FALSE(std::isfinite(scale)) << bad << " at " << place;
          else
            EXPECT_EQ(scale, before.scales.view()(0, group));
        }
      }
    }
  }
}

Rows<float> angles(int64_t num_positions, int64_t rope_dim, float (*function)(float)) {
  Rows<float> table(num_positions, rope_dim / 2);
  for (int64_t position = 0; position < num_positions; position++) {
    for (int64_t i = 0; i < rope_dim / 2; i++)
      table.view()(position, i) = function(0.3f * static_cast<float>(position * (i + 1)));
  }
  return table;
}

// Tables of some positions, and rows at positions that repeat and go back.
struct Rope {
  explicit Rope(int64_t rope_dim) : cos(angles(50, rope_dim, std::cos)), sin(angles(50, rope_dim, std::sin)) {}
  RopeTable table() { return {cos.view(), sin.view()}; }
  static int32_t position_of(int64_t row) { return static_cast<int32_t>(row * 17 % 50); }
  Rows<float> cos, sin;
};

std::vector<int32_t> positions_of(int64_t begin, int64_t count) {
  std::vector<int32_t> positions;
  for (int64_t row = begin; row < begin + count; row++) positions.push_back(Rope::position_of(row));
  return positions;
}

TEST(RotateQueries, TurnsNeighbouringPairsByTheirAngles) {
  for (IsaLevel isa : levels_here()) {
    Rope rope(6);
    const Rows<float> input = Rows<float>::random(2, 3 * 10, 1);
    Rows<float> q = input, before = input;
    // The last six of ten numbers of each of three heads.
    const View<float, 3> q_rope = View<float, 3>(q.view().data(), 2, 3, 10).slice(2, 4, 6);
    const int32_t positions[] = {7, 49};
    TestOps(isa)->rotate_queries(q_rope, View<const int32_t, 1>(positions, 2), rope.table());
    for (int row = 0; row < 2; row++) {
      for (int head = 0; head < 3; head++) {
        for (int i = 0; i < 10; i += 2) {
          const float x = before.view()(row, head * 10 + i), y = before.view()(row, head * 10 + i + 1);
          const float cos = i < 4 ? 1 : rope.cos.view()(positions[row], (i - 4) / 2);
          const float sin = i < 4 ? 0 : rope.sin.view()(positions[row], (i - 4) / 2);
          EXPECT_NEAR(q.view()(row, head * 10 + i), x * cos - y * sin, 1e-6);
          EXPECT_NEAR(q.view()(row, head * 10 + i + 1), x * sin + y * cos, 1e-6);
        }
      }
    }
  }
}

TEST(RotateQueries, HasTheSameBitsEverywhere) {
  for (int64_t rope_dim : {2, 6, 24, 32, 50, 64}) {
    const int64_t num_rows = rope_dim == 64 ? 120 : 5, num_heads = 5;
    Rope rope(rope_dim);
    Rows<float> input = Rows<float>::random(num_rows, num_heads * (rope_dim + 3), 1);
    expect_same_bits_everywhere(num_rows, [&](const Ops& ops, int64_t begin, int64_t count) {
      Rows<float> q = input;
      const std::vector<int32_t> positions = positions_of(begin, count);
      const View<float, 3> heads(q.rows(begin, count).data(), count, num_heads, rope_dim + 3);
      ops.rotate_queries(heads.slice(2, 3, rope_dim), View<const int32_t, 1>(positions.data(), count), rope.table());
      Bits bits;
      for (int64_t row = 0; row < count; row++) bits.append(q.row(begin + row));
      return bits;
    });
  }
}

template <class T>
void test_latents(int64_t kv_lora_rank, int64_t rope_dim, int64_t num_rows) {
  SCOPED_TRACE(fmt::format("latent {}, rope {}, {} rows", kv_lora_rank, rope_dim, num_rows));
  constexpr int kBlockSize = 16, kNumBlocks = 16;
  const std::vector<BlockId> blocks = {11, 3, 4, 15, 0, 7, 1, 9};
  Rope rope(rope_dim);
  Rows<float> kv_a = Rows<float>::random(num_rows, kv_lora_rank + rope_dim, 1),
              weight = Rows<float>::random(1, kv_lora_rank, 2);
  const auto slot_of = [&](int64_t position) {
    return blocks[position / kBlockSize] * kBlockSize + position % kBlockSize;
  };
  expect_same_bits_everywhere(num_rows, [&](const Ops& ops, int64_t begin, int64_t count) {
    Rows<T> cache(kNumBlocks * kBlockSize, kv_lora_rank + rope_dim);
    std::vector<int64_t> slots;
    for (int64_t row = begin; row < begin + count; row++) slots.push_back(slot_of(row));
    const std::vector<int32_t> positions = positions_of(begin, count);
    ops.store_latents({.kv_a = kv_a.rows(begin, count),
                       .norm_weight = weight.row(0),
                       .epsilon = 1e-6f,
                       .rope = rope.table(),
                       .positions = View<const int32_t, 1>(positions.data(), count),
                       .slots = View<const int64_t, 1>(slots.data(), count),
                       .cache = ComputeView<2>(cache.view())});
    Rows<float> out(count, kv_lora_rank);
    Quantized quantized(count, kv_lora_rank, 32), alone(count, kv_lora_rank, 64);
    LoadLatentsArgs load{.context = {ComputeView<2>(cache.view()), blocks, kBlockSize},
                         .first_position = static_cast<int>(begin),
                         .out = out.view(),
                         .quantized = quantized.view()};
    ops.load_latents(load);
    load.out = {};
    load.quantized = alone.view();
    ops.load_latents(load);
    Bits bits;
    for (int64_t row = 0; row < count; row++) {
      bits.append(cache.row(slot_of(begin + row)));
      bits.append(out.row(row));
      quantized.append_row(row, bits);
      alone.append_row(row, bits);
      for (int64_t i = 0; i < kv_lora_rank; i++) {
        EXPECT_EQ(out.view()(row, i), static_cast<float>(cache.view()(slot_of(begin + row), i)));
      }
    }
    return bits;
  });
}

TEST(Latents, ComeBackFromTheCacheWithTheSameBitsEverywhere) {
  test_latents<float>(512, 64, 100);
  test_latents<bf16>(512, 64, 100);
  test_latents<float>(40, 24, 33);
  test_latents<bf16>(77, 6, 9);
}

TEST(Latents, AreNormalizedAndTheirKeysRotated) {
  for (IsaLevel isa : levels_here()) {
    Rope rope(4);
    Rows<float> kv_a = Rows<float>::random(1, 10, 1), weight = Rows<float>::random(1, 6, 2), cache(8, 10);
    const int32_t position = 13;
    const int64_t slot = 5;
    TestOps(isa)->store_latents({kv_a.view(), weight.row(0), 1e-6f, rope.table(), View<const int32_t, 1>(&position, 1),
                                 View<const int64_t, 1>(&slot, 1), ComputeView<2>(cache.view())});
    const View<float, 1> x = kv_a.row(0);
    double squares = 0;
    for (int i = 0; i < 6; i++) squares += x(i) * x(i);
    for (int i = 0; i < 6; i++) {
      EXPECT_NEAR(cache.view()(5, i), x(i) / std::sqrt(squares / 6 + 1e-6) * weight.view()(0, i), 1e-6);
    }
    for (int i = 0; i < 2; i++) {
      const float cos = rope.cos.view()(13, i), sin = rope.sin.view()(13, i);
      EXPECT_NEAR(cache.view()(5, 6 + 2 * i), x(6 + 2 * i) * cos - x(7 + 2 * i) * sin, 1e-6);
      EXPECT_NEAR(cache.view()(5, 7 + 2 * i), x(6 + 2 * i) * sin + x(7 + 2 * i) * cos, 1e-6);
    }
    for (int row : {4, 6}) EXPECT_EQ(cache.view()(row, 0), 0) << "a neighbour was written";
  }
}

template <class T>
void test_embed() {
  for (const auto& [num_rows, features] : kShapes) {
    Rows<T> table = Rows<T>::random(12, features, 1);
    expect_same_bits_everywhere(num_rows, [&](const Ops& ops, int64_t begin, int64_t count) {
      std::vector<int32_t> ids;
      for (int64_t row = begin; row < begin + count; row++) ids.push_back(static_cast<int32_t>(row * 7 % 40));
      Rows<float> out = Rows<float>::random(count, features, 9);
      ops.embed({View<const int32_t, 1>(ids.data(), count), table.view().data(), dtype_of<T>(), 20, 12, out.view()});
      Bits bits;
      for (int64_t row = 0; row < count; row++) {
        const bool inside = ids[row] >= 20 && ids[row] < 32;
        EXPECT_EQ(out.view()(row, features - 1),
                  inside ? static_cast<float>(table.view()(ids[row] - 20, features - 1)) : 0.f);
        bits.append(out.row(row));
      }
      return bits;
    });
  }
}

TEST(Embed, GivesTheTablesRowsAndZerosOutsideItsSlice) {
  test_embed<float>();
  test_embed<bf16>();
  test_embed<fp16>();
}

template <class T>
void test_combine(bool accumulate) {
  for (const auto& [num_rows, features] : kShapes) {
    for (int64_t top_k : {1, 6, 8}) {
      Rows<T> expert_rows = Rows<T>::random(40, features, 1);
      Rows<float> before = Rows<float>::random(num_rows, features, 2),
                  weights = Rows<float>::random(num_rows, top_k, 3);
      Rows<int32_t> row_ids(num_rows, top_k);
      for (int64_t row = 0; row < num_rows; row++) {
        for (int64_t slot = 0; slot < top_k; slot++)
          row_ids.view()(row, slot) = static_cast<int32_t>((row * 11 + slot * 7) % 40);
      }
      expect_same_bits_everywhere(num_rows, [&](const Ops& ops, int64_t begin, int64_t count) {
        Rows<float> sum = before;
        ops.combine({ComputeView<2>(expert_rows.view()), row_ids.rows(begin, count), weights.rows(begin, count),
                     sum.rows(begin, count), accumulate});
        Bits bits;
        for (int64_t row = begin; row < begin + count; row++) {
          double expected = accumulate ? before.view()(row, 0) : 0.f;
          for (int64_t slot = 0; slot < top_k; slot++) {
            expected += double{weights.view()(row, slot)} *
                        static_cast<float>(expert_rows.view()(row_ids.view()(row, slot), 0));
          }
          EXPECT_NEAR(sum.view()(row, 0), expected, 1e-5);
          bits.append(sum.row(row));
        }
        return bits;
      });
    }
  }
}

TEST(Combine, AddsWeightedExpertRowsWithTheSameBitsEverywhere) {
  test_combine<float>(true);
  test_combine<bf16>(true);
}

TEST(Combine, OverwritesASumThatIsNotToBeKept) {
  test_combine<float>(false);
  test_combine<bf16>(false);
}

TEST(GatherRows, CopiesTheRowsThatAreAskedFor) {
  for (const auto& [num_rows, features] : kShapes) {
    Rows<float> in = Rows<float>::random(num_rows, features, 1);
    std::vector<int32_t> row_ids(num_rows);
    for (int64_t row = 0; row < num_rows; row++) row_ids[row] = static_cast<int32_t>(num_rows - 1 - row);
    expect_same_bits_everywhere(num_rows, [&](const Ops& ops, int64_t begin, int64_t count) {
      Rows<float> out(count, features);
      ops.gather_rows(in.view(), View<const int32_t, 1>(&row_ids[begin], count), out.view());
      Bits bits;
      for (int64_t row = 0; row < count; row++) {
        EXPECT_EQ(out.view()(row, 0), in.view()(num_rows - 1 - begin - row, 0));
        bits.append(out.row(row));
      }
      return bits;
    });
  }
}

template <class T>
void test_compute() {
  for (const auto& [num_rows, features] : kShapes) {
    Rows<float> in = Rows<float>::random(num_rows, features + 3, 1);
    expect_same_bits_everywhere(num_rows, [&](const Ops& ops, int64_t begin, int64_t count) {
      Rows<T> stored(count, features);
      Rows<float> back(count, features);
      const View<float, 2> part = in.rows(begin, count).slice(1, 2, features);  // rows with gaps between them
      ops.to_compute(part, ComputeView<2>(stored.view()));
      ops.from_compute(ComputeView<2>(stored.view()), back.view());
      Bits bits;
      for (int64_t row = 0; row < count; row++) {
        EXPECT_EQ(back.view()(row, 0), static_cast<float>(static_cast<T>(part(row, 0))));
        bits.append(stored.row(row));
        bits.append(back.row(row));
      }
      return bits;
    });
  }
}

TEST(Compute, RoundsToTheDtypeAndBack) {
  test_compute<float>();
  test_compute<bf16>();
}

TEST(Compute, RoundsEveryKindOfNumberAsTheTypeItself) {
  std::vector<float> values;
  for (uint32_t high = 0; high < 0x10000; high++) {
    for (uint32_t low : {0x0000u, 0x7fffu, 0x8000u, 0x8001u}) values.push_back(std::bit_cast<float>(high << 16 | low));
  }
  const int64_t count = std::ssize(values);
  for (IsaLevel isa : levels_here()) {
    Rows<bf16> out(1, count);
    TestOps(isa)->to_compute(View<float, 2>(values.data(), 1, count), ComputeView<2>(out.view()));
    int64_t wrong = 0;
    for (int64_t i = 0; i < count; i++) wrong += out.view()(0, i).bits != bf16(values[i]).bits;
    EXPECT_EQ(wrong, 0) << isa_name(isa);
  }
}

}  // namespace
}  // namespace cachalot
