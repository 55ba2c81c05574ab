#pragma once

#include <gtest/gtest.h>

#include <bit>
#include <cstdint>
#include <functional>
#include <memory>
#include <random>
#include <vector>

#include "kernels/ops.h"

// For tests of operations: every level that this machine runs, and results compared bit by bit.
namespace cachalot {

inline std::vector<IsaLevel> levels_here() {
  std::vector<IsaLevel> levels;
  for (IsaLevel isa : {IsaLevel::kReference, IsaLevel::kAvx2, IsaLevel::kAvx512}) {
    if (isa <= detect_isa()) levels.push_back(isa);
  }
  return levels;
}

inline float packed_weight(const PackedMatrix& matrix, int64_t out, int64_t in) {
  const PackedElement element = packed_element(matrix, out, in);
  return element.value * element.scale;
}

inline constexpr OpsLimits kTestLimits = {.max_rows = 4096,
                                          .max_pairs = 16384,
                                          .max_in_features = 8192,
                                          .max_width = 4096,
                                          .max_heads = 16,
                                          .max_head_dim = 256,
                                          .max_kv_lora_rank = 512,
                                          .max_positions = 4096,
                                          .max_index_heads = 64,
                                          .max_index_dim = 128};

// Operations with a device of their own.
class TestOps {
 public:
  explicit TestOps(IsaLevel isa, int num_threads = 1, const OpsLimits& limits = kTestLimits)
      : device_(std::make_unique<Device>(ThreadPoolOptions{.num_threads = num_threads})),
        ops_(std::move(Ops::create(isa, *device_, limits).value())) {}
  const Ops* operator->() const { return &ops_; }
  const Ops& operator*() const { return ops_; }

 private:
  std::unique_ptr<Device> device_;
  Ops ops_;
};

// A matrix of its own memory.
template <class T>
class Rows {
 public:
  Rows(int64_t num_rows, int64_t features) : features_(features), values_(num_rows * features) {}
  static Rows random(int64_t num_rows, int64_t features, uint32_t seed, float deviation = 1.f) {
    Rows rows(num_rows, features);
    std::mt19937 generator(seed);
    std::normal_distribution<float> normal(0.f, deviation);
    for (T& value : rows.values_) value = static_cast<T>(normal(generator));
    return rows;
  }
  View<T, 2> view() { return View<T, 2>(values_.data(), std::ssize(values_) / features_, features_); }
  // Rows [begin, begin + count).
  View<T, 2> rows(int64_t begin, int64_t count) { return view().rows(begin, count); }
  View<T, 1> row(int64_t row) { return view()[row]; }

 private:
  int64_t features_;
  std::vector<T> values_;
};

// Results row by row, as bits.
class Bits {
 public:
  template <class T>
  void append(View<T, 1> values) {
    for (int64_t i = 0; i < values.extent(0); i++) append(values(i));
  }
  void append(float value) { words_.push_back(std::bit_cast<uint32_t>(value)); }
  void append(bf16 value) { words_.push_back(value.bits); }
  void append(int32_t value) { words_.push_back(static_cast<uint32_t>(value)); }
  void append(int8_t value) { append(static_cast<int32_t>(value)); }
  void append(const Bits& other) { words_.insert(words_.end(), other.words_.begin(), other.words_.end()); }
  bool operator==(const Bits&) const = default;

 private:
  std::vector<uint32_t> words_;
};

// run(ops, begin, count) gives the results of rows [begin, begin + count), row by row. They must be those of the
// reference on every level, for one thread and several, and for any division of the rows.
inline void expect_same_bits_everywhere(int64_t num_rows,
                                        const std::function<Bits(const Ops&, int64_t, int64_t)>& run) {
  const Bits expected = run(*TestOps(IsaLevel::kReference), 0, num_rows);
  for (IsaLevel isa : levels_here()) {
    for (int num_threads : {1, 3}) {
      SCOPED_TRACE(fmt::format("{}, {} threads", isa_name(isa), num_threads));
      const TestOps ops(isa, num_threads);
      EXPECT_TRUE(run(*ops, 0, num_rows) == expected);
      Bits pieces;
      for (int64_t begin = 0, count = 1; begin < num_rows; begin += count, count = count * 3 % 7) {
        count = std::min(count, num_rows - begin);
        pieces.append(run(*ops, begin, count));
      }
      EXPECT_TRUE(pieces == expected) << "in pieces";
    }
  }
}

}  // namespace cachalot
