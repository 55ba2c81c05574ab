#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <random>
#include <vector>

#include "base/math.h"
#include "kernels/ops_test_util.h"

namespace cachalot {
namespace {

struct Dims {
  int64_t heads, nope, rope, v, latent;
};
constexpr Dims kSmall{3, 16, 8, 24, 32}, kOdd{5, 48, 24, 40, 64}, kTails{2, 7, 6, 5, 19}, kWide{13, 128, 64, 128, 512};

OpsLimits limits_of(const Dims& dims, int64_t rows, int64_t positions) {
  return {.max_rows = rows,
          .max_heads = dims.heads,
          .max_head_dim = std::max(dims.nope + dims.rope, dims.v),
          .max_kv_lora_rank = dims.latent,
          .max_positions = positions};
}

std::vector<float> random_floats(int64_t count, std::mt19937& random, float scale = 1) {
  std::normal_distribution<float> normal(0, scale);
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = normal(random);
  return values;
}

// A cache whose blocks lie in it in random order. Slots that hold no position are NaN.
class Cache {
 public:
  Cache(const Dims& dims, int64_t positions, int block_size, DType dtype, std::mt19937& random)
      : width_(dims.latent + dims.rope), block_size_(block_size), dtype_(dtype) {
    blocks_.resize(static_cast<size_t>(ceil_div(positions, block_size) + 2));
    std::iota(blocks_.begin(), blocks_.end(), 0);
    std::ranges::shuffle(blocks_, random);
    const auto elements = static_cast<size_t>(std::ssize(blocks_) * block_size * width_);
    floats_.assign(elements, NAN);
    const std::vector<float> rows = random_floats(positions * width_, random);
    for (int64_t position = 0; position < positions; position++)
      for (int64_t d = 0; d < width_; d++) {
        const float value = rows[static_cast<size_t>(position * width_ + d)];
        floats_[index(position, d)] = dtype == DType::kBF16 ? static_cast<float>(bf16(value)) : value;
      }
    halves_.resize(elements);
    for (size_t idx = 0; idx < elements; idx++) halves_[idx] = bf16(floats_[idx]);
  }

  CachedContext context() {
    const int64_t slots = std::ssize(blocks_) * block_size_;
    void* data = dtype_ == DType::kBF16 ? static_cast<void*>(halves_.data()) : floats_.data();
    return {.cache = ComputeView<2>(data, dtype_, slots, width_), .blocks = blocks_, .block_size = block_size_};
  }
  float at(int64_t position, int64_t d) const { return floats_[index(position, d)]; }

 private:
  size_t index(int64_t position, int64_t d) const {
    const int64_t slot = blocks_[static_cast<size_t>(position / block_size_)] * block_size_ + position % block_size_;
    return static_cast<size_t>(slot * width_ + d);
  }

  int64_t width_;
  int block_size_;
  DType dtype_;
  std::vector<BlockId> blocks_;
  std::vector<float> floats_;
  std::vector<bf16> halves_;
};

// softmax(scores) . values in doubles; value(position, d).
template <class Value>
std::vector<float> softmax_sum(std::vector<double> scores, int64_t dim, Value&& value) {
  const double max = *std::ranges::max_element(scores);
  double sum = 0;
  for (double& score : scores) sum += score = std::exp(score - max);
  std::vector<float> out;
  for (int64_t d = 0; d < dim; d++) {
    double acc = 0;
    for (size_t position = 0; position < scores.size(); position++)
      acc += scores[position] * value(static_cast<int64_t>(position), d);
    out.push_back(static_cast<float>(acc / sum));
  }
  return out;
}

// ---- expanded -------------------------------------------------------------------------------------------------------

// A prompt whose last `num_rows` rows attend to all of its positions.
struct Prompt {
  Prompt(const Dims& dims, int64_t num_rows, int64_t positions, int block_size, DType dtype, uint32_t seed,
         float query_scale = 1)
      : dims(dims),
        num_rows(num_rows),
        positions(positions),
        random(seed),
        cache(dims, positions, block_size, dtype, random),
        q(random_floats(num_rows * dims.heads * (dims.nope + dims.rope), random, query_scale)),
        kv(random_floats(positions * dims.heads * (dims.nope + dims.v), random)) {}

  // Rows [row_begin, row_end), the context in chunks of at most `chunk` positions.
  std::vector<float> attend(IsaLevel isa, int num_threads, int64_t chunk, int64_t row_begin, int64_t row_end) {
    const TestOps ops(isa, num_threads, limits_of(dims, num_rows, positions));
    const int64_t rows = row_end - row_begin, first_position = positions - num_rows + row_begin,
                  seen = first_position + rows;
    std::vector<float> out(static_cast<size_t>(rows * dims.heads * dims.v), NAN),
        max(static_cast<size_t>(rows * dims.heads), NAN), sum = max;
    const View<const float, 3> all_q(q.data(), num_rows, dims.heads, dims.nope + dims.rope);
    const View<const float, 3> all_kv(kv.data(), positions, dims.heads, dims.nope + dims.v);
    for (int64_t first = 0; first < seen; first += chunk)
      ops->attend_expanded({.q = all_q.rows(row_begin, rows),
                            .kv = all_kv.rows(first, std::min(chunk, seen - first)),
                            .context = cache.context(),
                            .nope_dim = static_cast<int>(dims.nope),
                            .rope_dim = static_cast<int>(dims.rope),
                            .first_row_position = static_cast<int>(first_position),
                            .first_chunk_position = static_cast<int>(first),
                            .softmax_scale = 0.3f,
                            .first_chunk = first == 0,
                            .last_chunk = first + chunk >= seen,
                            .out = View<float, 3>(out.data(), rows, dims.heads, dims.v),
                            .row_max = View<float, 2>(max.data(), rows, dims.heads),
                            .row_sum = View<float, 2>(sum.data(), rows, dims.heads)});
    return out;
  }
  std::vector<float> attend(IsaLevel isa, int num_threads = 2, int64_t chunk = 1 << 20) {
    return attend(isa, num_threads, chunk, 0, num_rows);
  }

  std::vector<float> in_doubles(int64_t row, int64_t head) const {
    const float* query = q.data() + (row * dims.heads + head) * (dims.nope + dims.rope);
    const auto key_value = [&](int64_t position) {
      return kv.data() + (position * dims.heads + head) * (dims.nope + dims.v);
    };
    std::vector<double> scores;
    for (int64_t position = 0; position <= positions - num_rows + row; position++) {
      double dot = 0;
      for (int64_t d = 0; d < dims.nope; d++) dot += double{query[d]} * key_value(position)[d];
      for (int64_t d = 0; d < dims.rope; d++) dot += double{query[dims.nope + d]} * cache.at(position, dims.latent + d);
      scores.push_back(dot * 0.3f);
    }
    return softmax_sum(scores, dims.v, [&](int64_t position, int64_t d) { return key_value(position)[dims.nope + d]; });
  }

  Dims dims;
  int64_t num_rows, positions;
  std::mt19937 random;
  Cache cache;
  std::vector<float> q, kv;
};

TEST(ExpandedAttention, IsTheSoftmaxOverWhatARowSees) {
  for (const Dims& dims : {kSmall, kOdd, kTails}) {
    Prompt prompt(dims, 70, 200, 16, DType::kBF16, 1);
    const std::vector<float> out = prompt.attend(IsaLevel::kReference);
    for (int64_t row = 0; row < 70; row += 23)
      for (int64_t head = 0; head < dims.heads; head++) {
        const std::vector<float> expected = prompt.in_doubles(row, head);
        for (int64_t d = 0; d < dims.v; d++)
          EXPECT_NEAR(out[static_cast<size_t>((row * dims.heads + head) * dims.v + d)],
                      expected[static_cast<size_t>(d)], 1e-5);
      }
  }
}

TEST(ExpandedAttention, GivesTheSameBitsOnEveryLevel) {
  for (const Dims& dims : {kSmall, kOdd, kTails, kWide})
    for (const DType dtype : {DType::kBF16, DType::kF32})
      for (const auto& [rows, positions, block_size] :
           {std::tuple{1, 1, 64}, {1, 64, 64}, {2, 65, 1}, {13, 13, 3}, {70, 130, 16}, {5, 333, 64}}) {
        Prompt prompt(dims, rows, positions, block_size, dtype, 2);
        const std::vector<float> expected = prompt.attend(IsaLevel::kReference);
        for (const IsaLevel isa : levels_here())
          EXPECT_THAT(prompt.attend(isa), testing::ContainerEq(expected))
              << isa_name(isa) << " " << dims.heads << " heads, " << rows << " rows of " << positions << ", blocks of "
              << block_size;
      }
}

TEST(ExpandedAttention, GivesTheSameBitsInAnyChunksAndThreads) {
  for (const IsaLevel isa : levels_here()) {
    Prompt prompt(kOdd, 150, 300, 64, DType::kBF16, 3);
    const std::vector<float> expected = prompt.attend(isa, 1);
    for (const int num_threads : {1, 2, 3, 4})
      for (const int64_t chunk : {64, 128, 256})
        EXPECT_EQ(prompt.attend(isa, num_threads, chunk), expected) << isa_name(isa);
  }
}

TEST(ExpandedAttention, GivesARowTheSameBitsAloneAndAmongOthers) {
  for (const IsaLevel isa : levels_here()) {
    Prompt prompt(kOdd, 150, 170, 64, DType::kBF16, 4);
    const std::vector<float> expected = prompt.attend(isa);
    const auto row_size = static_cast<size_t>(kOdd.heads * kOdd.v);
    for (const int64_t step : {1, 7, 64})
      for (int64_t row = 0; row < 150; row += step) {
        const int64_t end = std::min<int64_t>(row + step, 150);
        const std::vector<float> out = prompt.attend(isa, 2, 64, row, end);
        EXPECT_EQ(
            std::memcmp(out.data(), expected.data() + static_cast<size_t>(row) * row_size, out.size() * sizeof(float)),
            0)
            << isa_name(isa) << ", rows " << row << " to " << end;
      }
  }
}

TEST(ExpandedAttention, StandsExtremeScores) {
  for (const IsaLevel isa : levels_here()) {
    Prompt prompt(kSmall, 40, 200, 64, DType::kF32, 5, 1e15f);
    EXPECT_THAT(prompt.attend(isa), testing::Each(testing::Truly([](float x) { return std::isfinite(x); })))
        << isa_name(isa);
  }
}

// ---- absorbed -------------------------------------------------------------------------------------------------------

// Generated rows, each of a sequence of its own.
struct Generated {
  Generated(const Dims& dims, std::vector<int> row_positions, int block_size, DType dtype, uint32_t seed,
            float query_scale = 1)
      : dims(dims), row_positions(std::move(row_positions)), random(seed) {
    for (const int position : this->row_positions) caches.emplace_back(dims, position + 1, block_size, dtype, random);
    const auto rows = std::ssize(this->row_positions);
    q_latent = random_floats(rows * dims.heads * dims.latent, random, query_scale);
    q = random_floats(rows * dims.heads * (dims.nope + dims.rope), random, query_scale);
  }

  std::vector<float> attend(IsaLevel isa, int num_threads, int64_t row_begin, int64_t row_end) {
    const auto num_rows = std::ssize(row_positions);
    const TestOps ops(isa, num_threads, limits_of(dims, num_rows, *std::ranges::max_element(row_positions) + 1));
    std::vector<AbsorbedRow> rows;
    for (int64_t row = row_begin; row < row_end; row++)
      rows.push_back({caches[static_cast<size_t>(row)].context(), row_positions[static_cast<size_t>(row)]});
    std::vector<float> out(rows.size() * static_cast<size_t>(dims.heads * dims.latent), NAN);
    const int64_t count = row_end - row_begin;
    ops->attend_absorbed(
        {.q_latent = View<const float, 3>(q_latent.data(), num_rows, dims.heads, dims.latent).rows(row_begin, count),
         .q_rope = View<const float, 3>(q.data(), num_rows, dims.heads, dims.nope + dims.rope)
                       .rows(row_begin, count)
                       .slice(2, dims.nope, dims.rope),
         .rows = rows,
         .softmax_scale = 0.2f,
         .out = View<float, 3>(out.data(), count, dims.heads, dims.latent)});
    return out;
  }
  std::vector<float> attend(IsaLevel isa, int num_threads = 2) {
    return attend(isa, num_threads, 0, std::ssize(row_positions));
  }

  std::vector<float> in_doubles(int64_t row, int64_t head) const {
    const Cache& cache = caches[static_cast<size_t>(row)];
    const float* latent = q_latent.data() + (row * dims.heads + head) * dims.latent;
    const float* rope = q.data() + (row * dims.heads + head) * (dims.nope + dims.rope) + dims.nope;
    std::vector<double> scores;
    for (int64_t position = 0; position <= row_positions[static_cast<size_t>(row)]; position++) {
      double dot = 0;
      for (int64_t d = 0; d < dims.latent; d++) dot += double{latent[d]} * cache.at(position, d);
      for (int64_t d = 0; d < dims.rope; d++) dot += double{rope[d]} * cache.at(position, dims.latent + d);
      scores.push_back(dot * 0.2f);
    }
    return softmax_sum(scores, dims.latent, [&](int64_t position, int64_t d) { return cache.at(position, d); });
  }

  Dims dims;
  std::vector<int> row_positions;
  std::mt19937 random;
  std::vector<Cache> caches;
  std::vector<float> q_latent, q;
};

TEST(AbsorbedAttention, IsTheSoftmaxOverTheContext) {
  for (const Dims& dims : {kSmall, kOdd, kTails}) {
    Generated generated(dims, {0, 100, 1500}, 16, DType::kBF16, 6);
    const std::vector<float> out = generated.attend(IsaLevel::kReference);
    for (int64_t row = 0; row < 3; row++)
      for (int64_t head = 0; head < dims.heads; head++) {
        const std::vector<float> expected = generated.in_doubles(row, head);
        for (int64_t d = 0; d < dims.latent; d++)
          EXPECT_NEAR(out[static_cast<size_t>((row * dims.heads + head) * dims.latent + d)],
                      expected[static_cast<size_t>(d)], 1e-5);
      }
  }
}

TEST(AbsorbedAttention, GivesTheSameBitsOnEveryLevel) {
  for (const Dims& dims : {kSmall, kOdd, kTails, kWide})
    for (const DType dtype : {DType::kBF16, DType::kF32})
      for (const int block_size : {1, 7, 64}) {
        Generated generated(dims, {0, 1, 63, 64, 130, 511, 600}, block_size, dtype, 7);
        const std::vector<float> expected = generated.attend(IsaLevel::kReference);
        for (const IsaLevel isa : levels_here())
          EXPECT_THAT(generated.attend(isa), testing::ContainerEq(expected))
              << isa_name(isa) << " " << dims.heads << " heads, blocks of " << block_size;
      }
}

TEST(AbsorbedAttention, GivesLongContextsTheSameBitsOnEveryLevelAndAnyThreads) {
  Generated generated(kSmall, {3000, 7, 511, 512, 5200, 1023}, 64, DType::kBF16, 8);
  const std::vector<float> expected = generated.attend(IsaLevel::kReference);
  for (const IsaLevel isa : levels_here())
    for (const int num_threads : {1, 2, 3, 4})
      EXPECT_EQ(generated.attend(isa, num_threads), expected) << isa_name(isa) << ", " << num_threads << " threads";
}

TEST(AbsorbedAttention, GivesARowTheSameBitsAloneAndAmongOthers) {
  for (const IsaLevel isa : levels_here()) {
    Generated generated(kOdd, {700, 3, 64, 1100, 0, 200, 513}, 64, DType::kBF16, 9);
    const std::vector<float> expected = generated.attend(isa, 2);
    const auto row_size = static_cast<size_t>(kOdd.heads * kOdd.latent);
    for (int64_t begin = 0; begin < 7; begin++)
      for (const int64_t end : {begin + 1, int64_t{7}}) {
        const std::vector<float> out = generated.attend(isa, 3, begin, end);
        EXPECT_EQ(std::memcmp(out.data(), expected.data() + static_cast<size_t>(begin) * row_size,
                              out.size() * sizeof(float)),
                  0)
            << isa_name(isa) << ", rows " << begin << " to " << end;
      }
  }
}

TEST(AbsorbedAttention, StandsExtremeScores) {
  for (const IsaLevel isa : levels_here()) {
    Generated generated(kSmall, {900, 20}, 64, DType::kF32, 10, 1e15f);
    EXPECT_THAT(generated.attend(isa), testing::Each(testing::Truly([](float x) { return std::isfinite(x); })))
        << isa_name(isa);
  }
}

}  // namespace
}  // namespace cachalot
