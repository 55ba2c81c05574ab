#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "base/math.h"
#include "kernels/ops_test_util.h"
#include "kernels/weight_samples_test_util.h"

namespace cachalot {
namespace {

// A matrix with its memory.
class Weights {
 public:
  Weights(const WeightSource& source, const MatrixPolicy& policy) : Weights(plan_matrix(source, policy)) {
    pack_matrix(source, matrix_.shape, 0, matrix_.shape.num_strips(), data());
  }
  static Weights gate_up(const WeightSource& gate, const WeightSource& up, const MatrixPolicy& policy) {
    Weights weights(plan_gate_up(gate, up, policy));
    pack_gate_up(gate, up, weights.matrix_.shape, 0, weights.matrix_.shape.num_strips(), weights.data());
    return weights;
  }
  const PackedMatrix& matrix() const { return matrix_; }

 private:
  explicit Weights(const MatrixShape& shape)
      : memory_(Device::allocate(shape.bytes()).value()), matrix_{shape, data()} {}
  std::byte* data() { return memory_.data(); }

  Buffer memory_;
  PackedMatrix matrix_;
};

// int8 rows with their memory.
class Int8Rows {
 public:
  Int8Rows(int64_t num_rows, int64_t features, int group)
      : values_(static_cast<size_t>(num_rows * features)),
        scales_(static_cast<size_t>(num_rows * ceil_div(features, group))) {
    rows_ = {View<int8_t, 2>(values_.data(), num_rows, features),
             View<float, 2>(scales_.data(), num_rows, ceil_div(features, group)), group};
  }
  const QuantizedRows& view() const { return rows_; }
  QuantizedRows rows(int64_t begin, int64_t count) const {
    return {rows_.values.rows(begin, count), rows_.scales.rows(begin, count), rows_.group};
  }

 private:
  std::vector<int8_t> values_;
  std::vector<float> scales_;
  QuantizedRows rows_;
};

Int8Rows quantized(View<float, 2> rows, int group) {
  Int8Rows result(rows.extent(0), rows.extent(1), group);
  TestOps(IsaLevel::kReference)->quantize(rows, result.view());
  return result;
}

// What a matrix is made of, in groups of so many inputs.
struct IntegerCase {
  MatrixFormat format;
  int group_size;
  Window window;
};
constexpr auto kI4 = MatrixFormat::kI4, kI8 = MatrixFormat::kI8, kI4Bf16 = MatrixFormat::kI4Bf16,
               kF4 = MatrixFormat::kF4;
const IntegerCase kIntegerCases[] = {
    {kI4, 64, {0, 16, 0, 64}},     {kI4, 64, {0, 144, 0, 320}}, {kI4, 64, {0, 33, 64, 224}},
    {kI4, 128, {8, 80, 0, 384}},   {kI4, 32, {0, 96, 32, 352}}, {kI4, 96, {0, 21, 0, 288}},
    {kI8, 64, {0, 144, 0, 320}},   {kI8, 64, {5, 51, 0, 200}},  {kI4Bf16, 32, {0, 96, 32, 352}},
    {kI4Bf16, 64, {0, 33, 0, 96}}, {kF4, 32, {0, 144, 0, 384}}, {kF4, 32, {3, 33, 32, 96}},
};

Weights integer_weights(const IntegerCase& test) {
  if (test.format == kI8) return {WeightSample::fp8(160, 384).window(test.window), kInt8};
  if (test.format == kF4) return {WeightSample::mxfp4(160, 384).window(test.window), kBFloat16};
  if (test.format == kI4Bf16)
    return {WeightSample::packed(4, 160, 384, test.group_size, DType::kBF16, true).window(test.window), kBFloat16};
  return {WeightSample::awq(160, 384, test.group_size, DType::kF16).window(test.window), kBFloat16};
}

// The rule of LinearInput, word for word.
float integer_product(const PackedMatrix& matrix, int64_t out, const QuantizedRows& rows, int64_t row) {
  float acc = 0;
  for (int64_t begin = 0; begin < matrix.shape.in_features; begin += rows.group) {
    const int64_t end = std::min<int64_t>(begin + rows.group, matrix.shape.in_features);
    int32_t sum = 0;
    for (int64_t in = begin; in < end; in++)
      sum += static_cast<int32_t>(packed_element(matrix, out, in).value) * rows.values(row, in);
    acc = std::fma(static_cast<float>(sum),
                   packed_element(matrix, out, begin).scale * rows.scales(row, begin / rows.group), acc);
  }
  return acc;
}

TEST(Linear, MultipliesIntegerMatricesByTheRuleToTheBit) {
  constexpr int64_t kMostRows = 400;
  for (const IntegerCase& test : kIntegerCases) {
    const Weights weights = integer_weights(test);
    const PackedMatrix& matrix = weights.matrix();
    ASSERT_EQ(matrix.shape.format, test.format);
    ASSERT_TRUE(matrix.shape.is_integer());
    Rows<float> x = Rows<float>::random(kMostRows, matrix.shape.in_features, 3);
    std::fill_n(x.row(1).data(), matrix.shape.block_inputs, 0.f);  // a group of zeros
    const Int8Rows input = quantized(x.view(), matrix.shape.block_inputs);
    Rows<float> expected(kMostRows, matrix.shape.out_features);
    for (int64_t row = 0; row < kMostRows; row++) {
      for (int64_t out = 0; out < matrix.shape.out_features; out++)
        expected.row(row)(out) = integer_product(matrix, out, input.view(), row);
    }
    for (IsaLevel isa : levels_here()) {
      const TestOps one_thread(isa, 1), threads(isa, 3);
      const bool slow = isa == IsaLevel::kReference;
      for (int64_t num_rows :
           {1, 2, 3, 4, 5, 7, 8, 11, 12, 13, 16, 24, 25, 31, 36, 37, 38, 41, 48, 59, 64, 100, 191, 192, 193, 400}) {
        if (slow && num_rows > 13 && num_rows != 193) continue;
        SCOPED_TRACE(fmt::format("{} {} x {} in blocks of {}, {} rows", isa_name(isa), matrix.shape.out_features,
                                 matrix.shape.in_features, matrix.shape.block_inputs, num_rows));
        const LinearInput some{.values = {}, .quantized = input.rows(kMostRows - num_rows, num_rows)};
        for (const TestOps* ops : {&one_thread, &threads}) {
          Rows<float> out = Rows<float>::random(num_rows, matrix.shape.out_features, 9);
          (*ops)->linear(some, matrix, out.view());
          for (int64_t row = 0; row < num_rows; row++) {
            for (int64_t idx = 0; idx < matrix.shape.out_features; idx++)
              ASSERT_EQ(out.row(row)(idx), expected.row(kMostRows - num_rows + row)(idx))
                  << "row " << row << ", output " << idx;
          }
        }
      }
    }
  }
}

TEST(Linear, TakesFloatRowsAndInt8RowsOfOtherGroupsInFloats) {
  constexpr int64_t kNumRows = 70, kInputs = 320;
  const Weights int4(WeightSample::awq(80, kInputs, 64, DType::kF16).all(), kBFloat16);
  const Weights plain(WeightSample::plain(DType::kBF16, 80, kInputs).all(), kBFloat16);
  const Rows<float> x = Rows<float>::random(kNumRows, kInputs, 5);
  Rows<float> floats = x;
  const Int8Rows int8 = quantized(floats.view(), 32);
  Rows<float> expanded(kNumRows, kInputs);
  for (int64_t row = 0; row < kNumRows; row++) {
    for (int64_t in = 0; in < kInputs; in++)
      expanded.row(row)(in) = static_cast<float>(int8.view().values(row, in)) * int8.view().scales(row, in / 32);
  }
  for (IsaLevel isa : levels_here()) {
    const TestOps ops(isa, 2);
    for (const Weights* weights : {&int4, &plain}) {
      Rows<float> of_int8(kNumRows, 80), of_expanded(kNumRows, 80), of_both(kNumRows, 80), of_floats(kNumRows, 80);
      ops->linear({.values = {}, .quantized = int8.view()}, weights->matrix(), of_int8.view());
      ops->linear({.values = expanded.view(), .quantized = {}}, weights->matrix(), of_expanded.view());
      ops->linear({.values = floats.view(), .quantized = int8.view()}, weights->matrix(), of_both.view());
      ops->linear({.values = floats.view(), .quantized = {}}, weights->matrix(), of_floats.view());
      for (int64_t row = 0; row < kNumRows; row++) {
        for (int64_t out = 0; out < 80; out++) {
          ASSERT_EQ(of_int8.row(row)(out), of_expanded.row(row)(out));
          ASSERT_EQ(of_both.row(row)(out), of_floats.row(row)(out));
          double sum = 0, magnitude = 0;
          for (int64_t in = 0; in < kInputs; in++) {
            const double term = static_cast<double>(packed_weight(weights->matrix(), out, in)) * expanded.row(row)(in);
            sum += term, magnitude += std::fabs(term);
          }
          ASSERT_NEAR(of_int8.row(row)(out), sum, 1e-6 * magnitude);
        }
      }
    }
  }
}

TEST(Linear, GivesARowTheSameBitsOnEveryLevelWithAnyThreadsAndOtherRows) {
  for (const IntegerCase& test :
       {kIntegerCases[1], kIntegerCases[4], kIntegerCases[6], kIntegerCases[8], kIntegerCases[10]}) {
    const Weights weights = integer_weights(test);
    const MatrixShape& shape = weights.matrix().shape;
    Rows<float> x = Rows<float>::random(230, shape.in_features, 4);
    const Int8Rows input = quantized(x.view(), shape.block_inputs);
    expect_same_bits_everywhere(230, [&](const Ops& ops, int64_t begin, int64_t count) {
      Rows<float> out(count, shape.out_features);
      ops.linear({.values = {}, .quantized = input.rows(begin, count)}, weights.matrix(), out.view());
      Bits bits;
      for (int64_t row = 0; row < count; row++) bits.append(out.row(row));
      return bits;
    });
  }
}

struct GatedWeights {
  GatedWeights(int64_t width, int64_t inputs, uint32_t seed)
      : gate(WeightSample::awq(width, inputs, 64, DType::kF16, seed)),
        up(WeightSample::awq(width, inputs, 64, DType::kF16, seed + 1)),
        both(Weights::gate_up(gate.all(), up.all(), kBFloat16)) {}
  WeightSample gate, up;
  Weights both;
};

TEST(GatedLinear, MultipliesUpBySiluOfGate) {
  constexpr int64_t kWidth = 88, kInputs = 192, kNumRows = 43;
  const GatedWeights weights(kWidth, kInputs, 7);
  const Weights gate(weights.gate.all(), kBFloat16), up(weights.up.all(), kBFloat16);
  Rows<float> x = Rows<float>::random(kNumRows, kInputs, 5);
  const Int8Rows input = quantized(x.view(), 64);
  for (IsaLevel isa : levels_here()) {
    const TestOps ops(isa, 2);
    Rows<float> gates(kNumRows, kWidth), ups(kNumRows, kWidth), out(kNumRows, kWidth);
    ops->linear({.values = {}, .quantized = input.view()}, gate.matrix(), gates.view());
    ops->linear({.values = {}, .quantized = input.view()}, up.matrix(), ups.view());
    ops->gated_linear({.values = {}, .quantized = input.view()}, weights.both.matrix(), out.view(), {});
    for (int64_t row = 0; row < kNumRows; row++) {
      for (int64_t idx = 0; idx < kWidth; idx++) {
        const double g = gates.row(row)(idx), want = g / (1 + std::exp(-g)) * ups.row(row)(idx);
        ASSERT_NEAR(out.row(row)(idx), want, 4e-7 * std::fabs(want) + 1e-37) << "gate " << g;
      }
    }
  }
}

TEST(GatedLinear, QuantizesItsResultAsQuantizeWould) {
  constexpr int64_t kWidth = 2200, kInputs = 64;
  const GatedWeights weights(kWidth, kInputs, 7);
  for (IsaLevel isa : levels_here()) {
    const TestOps ops(isa, 3);
    for (int64_t num_rows : {1, 5, 50}) {
      for (int group : {32, 64}) {
        Rows<float> x = Rows<float>::random(num_rows, kInputs, 5), out(num_rows, kWidth);
        const Int8Rows input = quantized(x.view(), 64), alone(num_rows, kWidth, group), beside(num_rows, kWidth, group);
        ops->gated_linear({.values = {}, .quantized = input.view()}, weights.both.matrix(), {}, alone.view());
        ops->gated_linear({.values = {}, .quantized = input.view()}, weights.both.matrix(), out.view(), beside.view());
        const Int8Rows expected = quantized(out.view(), group);
        for (const Int8Rows* rows : {&alone, &beside}) {
          for (int64_t row = 0; row < num_rows; row++) {
            for (int64_t idx = 0; idx < kWidth; idx++) {
              ASSERT_EQ(rows->view().values(row, idx), expected.view().values(row, idx)) << row << ", " << idx;
              ASSERT_EQ(rows->view().scales(row, idx / group), expected.view().scales(row, idx / group));
            }
          }
        }
      }
    }
  }
}

// Experts of two kinds, and pairs that leave some experts without rows and give one a great many.
class ExpertsFixture {
 public:
  static constexpr int64_t kHidden = 192, kWidth = 88;

  ExpertsFixture() {
    for (uint32_t expert = 0; expert < 6; expert++) {
      if (expert == 4) {
        const WeightSample sample = WeightSample::plain(DType::kBF16, kWidth, kHidden, 50);
        keep(Weights::gate_up(sample.all(), sample.all(), kBFloat16),
             Weights(WeightSample::plain(DType::kBF16, kHidden, kWidth, 51).all(), kBFloat16));
      } else {
        keep(std::move(GatedWeights(kWidth, kHidden, 10 * expert).both),
             Weights(WeightSample::awq(kHidden, 96, 32, DType::kF16, 10 * expert + 5).window({0, kHidden, 0, kWidth}),
                     kBFloat16));
      }
    }
    const int64_t num_rows[] = {3, 0, 1, 230, 9, 40};
    for (int64_t count : num_rows) offsets.push_back(offsets.back() + static_cast<int32_t>(count));
    for (int32_t pair = 0; pair < offsets.back(); pair++) {
      pair_rows.push_back(pair * 7 % kNumRows);
      out_rows.push_back(pair * 5 % offsets.back());  // 283 pairs: each another one
    }
  }

  static constexpr int64_t kNumRows = 101;
  std::vector<int32_t> offsets = {0}, pair_rows, out_rows;
  std::vector<PackedMatrix> gate_up, down;

 private:
  void keep(Weights gate_up_weights, Weights down_weights) {
    gate_up.push_back(gate_up_weights.matrix());
    down.push_back(down_weights.matrix());
    weights_.push_back(std::move(gate_up_weights));
    weights_.push_back(std::move(down_weights));
  }
  std::vector<Weights> weights_;
};

template <class T>
Rows<T> run_experts(const Ops& ops, const ExpertsFixture& fixture, const LinearInput& rows) {
  Rows<T> out(std::ssize(fixture.pair_rows), ExpertsFixture::kHidden);
  ops.experts({.rows = rows,
               .pair_rows = View<const int32_t, 1>(fixture.pair_rows.data(), fixture.pair_rows.size()),
               .out_rows = View<const int32_t, 1>(fixture.out_rows.data(), fixture.out_rows.size()),
               .offsets = fixture.offsets,
               .gate_up = fixture.gate_up,
               .down = fixture.down,
               .width = ExpertsFixture::kWidth,
               .out = ComputeView<2>(out.view())});
  return out;
}

// One pair at a time, from the other operations.
template <class T>
void expect_composed(const Ops& ops, const ExpertsFixture& fixture, const LinearInput& rows, Rows<T> out) {
  constexpr int64_t kWidth = ExpertsFixture::kWidth, kHidden = ExpertsFixture::kHidden;
  for (size_t expert = 0; expert + 1 < fixture.offsets.size(); expert++) {
    for (int64_t pair = fixture.offsets[expert]; pair < fixture.offsets[expert + 1]; pair++) {
      const int64_t row = fixture.pair_rows[static_cast<size_t>(pair)];
      LinearInput input = rows;
      if (!input.values.empty()) input.values = input.values.rows(row, 1);
      if (!input.quantized.empty())
        input.quantized = {input.quantized.values.rows(row, 1), input.quantized.scales.rows(row, 1),
                           input.quantized.group};
      Rows<float> product(1, kWidth), result(1, kHidden);
      ops.gated_linear(input, fixture.gate_up[expert], product.view(), {});
      const MatrixShape& shape = fixture.down[expert].shape;
      LinearInput between{.values = product.view(), .quantized = {}};
      const Int8Rows quantized_product(1, kWidth, shape.is_integer() ? shape.block_inputs : 32);
      if (!rows.quantized.empty() && shape.is_integer()) {
        ops.quantize(product.view(), quantized_product.view());
        between.quantized = quantized_product.view();
      }
      ops.linear(between, fixture.down[expert], result.view());
      for (int64_t idx = 0; idx < kHidden; idx++)
        ASSERT_EQ(static_cast<float>(out.row(fixture.out_rows[static_cast<size_t>(pair)])(idx)),
                  static_cast<float>(static_cast<T>(result.row(0)(idx))))
            << "pair " << pair << ", " << idx;
    }
  }
}

TEST(Experts, GiveEachPairWhatGatedLinearAndLinearGive) {
  const ExpertsFixture fixture;
  Rows<float> x = Rows<float>::random(ExpertsFixture::kNumRows, ExpertsFixture::kHidden, 8);
  const Int8Rows int8 = quantized(x.view(), 64);
  for (IsaLevel isa : levels_here()) {
    for (int num_threads : {1, 3}) {
      if (isa == IsaLevel::kReference && num_threads > 1) continue;  // slow
      SCOPED_TRACE(fmt::format("{}, {} threads", isa_name(isa), num_threads));
      const TestOps ops(isa, num_threads);
      const LinearInput floats{.values = x.view(), .quantized = {}},
          quantized_rows{.values = {}, .quantized = int8.view()};
      for (const LinearInput& rows : {floats, quantized_rows}) {
        if (num_threads == 1) {
          expect_composed(*ops, fixture, rows, run_experts<float>(*ops, fixture, rows));
        } else {
          expect_composed(*ops, fixture, rows, run_experts<bf16>(*ops, fixture, rows));
        }
      }
    }
  }
}

TEST(Experts, TakeSeveralPassesWhenTheMemoryBetweenThePhasesIsSmall) {
  const ExpertsFixture fixture;
  Rows<float> x = Rows<float>::random(ExpertsFixture::kNumRows, ExpertsFixture::kHidden, 8);
  const Int8Rows int8 = quantized(x.view(), 64);
  const LinearInput rows{.values = {}, .quantized = int8.view()};
  const OpsLimits small{.max_rows = ExpertsFixture::kNumRows,
                        .max_pairs = std::ssize(fixture.pair_rows),
                        .max_in_features = ExpertsFixture::kHidden,
                        .max_width = ExpertsFixture::kWidth};
  const Rows<bf16> at_once = run_experts<bf16>(*TestOps(IsaLevel::kReference), fixture, rows);
  for (IsaLevel isa : levels_here()) {
    Rows<bf16> expected = at_once, in_passes = run_experts<bf16>(*TestOps(isa, 2, small), fixture, rows);
    for (int64_t pair = 0; pair < std::ssize(fixture.pair_rows); pair++) {
      for (int64_t idx = 0; idx < ExpertsFixture::kHidden; idx++)
        ASSERT_EQ(in_passes.row(pair)(idx).bits, expected.row(pair)(idx).bits);
    }
  }
}

constexpr int64_t kHeads = 3, kIn = 24, kOut = 40;  // neither is a whole number of strips or spans

// Every head's own bf16 matrix; x is the middle of wider queries, out the front of wider rows.
class PerHeadLinearTest : public testing::Test {
 protected:
  PerHeadLinearTest() {
    std::normal_distribution<float> normal;
    for (int64_t head = 0; head < kHeads; head++) {
      weights_.emplace_back();
      for (int64_t idx = 0; idx < kOut * kIn; idx++) weights_.back().push_back(bf16(normal(random_)));
      const WeightSource source =
          whole({.dtype = DType::kBF16, .data = weights_.back().data(), .out_features = kOut, .in_features = kIn});
      const MatrixShape shape = plan_matrix(source, {});
      packed_.emplace_back(shape.bytes());
      pack_matrix(source, shape, 0, shape.num_strips(), packed_.back().data());
      matrices_.push_back({shape, packed_.back().data()});
    }
  }

  // [rows, kHeads, kOut + 1], the last number of each head left as it was.
  std::vector<float> run(IsaLevel isa, int num_threads, const std::vector<float>& queries) {
    const int64_t num_rows = std::ssize(queries) / (kHeads * kQuery);
    std::vector<float> out(static_cast<size_t>(num_rows * kHeads * (kOut + 1)), kUntouched);
    TestOps(isa, num_threads)
        ->per_head_linear(View<const float, 3>(queries.data(), num_rows, kHeads, kQuery).slice(2, kSkipped, kIn),
                          matrices_, View<float, 3>(out.data(), num_rows, kHeads, kOut + 1).slice(2, 0, kOut));
    return out;
  }

  std::vector<float> random_queries(int64_t num_rows) {
    std::normal_distribution<float> normal;
    std::vector<float> queries(static_cast<size_t>(num_rows * kHeads * kQuery));
    for (float& x : queries) x = normal(random_);
    return queries;
  }

  static constexpr int64_t kSkipped = 5, kQuery = kSkipped + kIn + 3;
  static constexpr float kUntouched = -77;
  std::mt19937 random_{1};
  std::vector<std::vector<bf16>> weights_;
  std::vector<std::vector<std::byte>> packed_;
  std::vector<PackedMatrix> matrices_;
};

TEST_F(PerHeadLinearTest, MultipliesEachHeadByItsMatrixAndTouchesNothingElse) {
  for (const int64_t num_rows : {1, 5, 130}) {
    const std::vector<float> queries = random_queries(num_rows);
    const std::vector<float> out = run(IsaLevel::kReference, 2, queries);
    for (int64_t row = 0; row < num_rows; row++)
      for (int64_t head = 0; head < kHeads; head++) {
        const float* x = queries.data() + (row * kHeads + head) * kQuery + kSkipped;
        const float* y = out.data() + (row * kHeads + head) * (kOut + 1);
        for (int64_t output = 0; output < kOut; output++) {
          double sum = 0;
          for (int64_t input = 0; input < kIn; input++)
            sum += static_cast<double>(static_cast<float>(
                       weights_[static_cast<size_t>(head)][static_cast<size_t>(output * kIn + input)])) *
                   x[input];
          EXPECT_NEAR(y[output], sum, 1e-4);
        }
        EXPECT_EQ(y[kOut], kUntouched);
      }
  }
}

TEST_F(PerHeadLinearTest, GivesTheSameBitsOnEveryLevelWithAnyThreads) {
  for (const int64_t num_rows : {1, 2, 7, 64, 65, 130}) {
    const std::vector<float> queries = random_queries(num_rows);
    const std::vector<float> expected = run(IsaLevel::kReference, 1, queries);
    for (const IsaLevel isa : levels_here())
      for (int num_threads = 1; num_threads <= 4; num_threads++)
        EXPECT_EQ(run(isa, num_threads, queries), expected)
            << isa_name(isa) << ", " << num_rows << " rows, " << num_threads << " threads";
  }
}

}  // namespace

}  // namespace cachalot
