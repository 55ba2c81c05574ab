#include "kernels/cpu/per_head_linear.h"

#include <gmock/gmock.h>

#include <cmath>
#include <random>
#include <vector>

namespace cachalot {
namespace {

struct PerHeadLevel {
  IsaLevel isa;
  FloatCore core;
};
const PerHeadLevel kPerHeadLevels[] = {{IsaLevel::kReference, reference::kLinearCores.float_core},
                                       {IsaLevel::kAvx2, avx2::kLinearCores.float_core},
                                       {IsaLevel::kAvx512, avx512::kLinearCores.float_core}};

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
  std::vector<float> run(FloatCore core, int num_threads, const std::vector<float>& queries) {
    const int64_t num_rows = std::ssize(queries) / (kHeads * kQuery);
    std::vector<float> out(static_cast<size_t>(num_rows * kHeads * (kOut + 1)), kUntouched);
    ThreadPool threads({.num_threads = num_threads});
    per_head_linear(core, {.threads = &threads, .scratch = {}},
                    View<const float, 3>(queries.data(), num_rows, kHeads, kQuery).slice(2, kSkipped, kIn), matrices_,
                    View<float, 3>(out.data(), num_rows, kHeads, kOut + 1).slice(2, 0, kOut));
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
    const std::vector<float> out = run(reference::kLinearCores.float_core, 2, queries);
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
    const std::vector<float> expected = run(reference::kLinearCores.float_core, 1, queries);
    for (const PerHeadLevel& level : kPerHeadLevels)
      for (int num_threads = 1; level.isa <= detect_isa() && num_threads <= 4; num_threads++)
        EXPECT_EQ(run(level.core, num_threads, queries), expected)
            << isa_name(level.isa) << ", " << num_rows << " rows, " << num_threads << " threads";
  }
}

}  // namespace
}  // namespace cachalot
