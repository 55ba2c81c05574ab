#pragma once

#include <cstdint>

#include "base/numbers.h"

// The inner loops of rowwise operations: one row (or a few) at a time, one implementation an instruction level (avx2/,
// avx512/). The drivers above them (cpu/rowwise.h) share out rows among threads.
//
// Every level gives the same bits. Sums over a row: element i goes to sum i % kPartialSums (squares by fma), in order;
// then the sums are added by halves: sum i and sum i + kPartialSums / 2, then of those i and i + kPartialSums / 4, ...
namespace cachalot {

inline constexpr int kPartialSums = 64;

struct RowCores {
  float (*sum_of_squares)(const float* x, int64_t count);
  // x += delta; gives the sum of squares of x.
  float (*add_and_square)(float* x, const float* delta, int64_t count);
  // out = x * factor * weight
  void (*scale)(const float* x, float factor, const float* weight, int64_t count, float* out);
  // The rule of QuantizedRows (ops.h): over each `group` of the row, scale = max|x| / 127 and value = x * (127 /
  // max|x|) rounded to nearest, ties to even. A group whose maximum is below kSmallestQuantized is zero, with scale 0.
  void (*quantize)(const float* x, int64_t count, int group, int8_t* values, float* scales);
  // Pairs (2i, 2i+1) by angle i; in place allowed.
  void (*rotate)(const float* x, const float* cos, const float* sin, int64_t num_pairs, float* out);

  void (*to_bf16)(const float* in, int64_t count, bf16* out);
  void (*from_bf16)(const bf16* in, int64_t count, float* out);
  void (*from_fp16)(const fp16* in, int64_t count, float* out);

  // sum = fma(weights[k], rows[k], sum) for k in order, from what the sum is before or from zero.
  void (*add_weighted_f32)(const float* const* rows, const float* weights, int num_rows, int64_t count, bool accumulate,
                           float* sum);
  void (*add_weighted_bf16)(const bf16* const* rows, const float* weights, int num_rows, int64_t count, bool accumulate,
                            float* sum);

  // By e = exp(-|x|): 1 / (1 + e), and e / (1 + e) for negative x.
  void (*sigmoid)(const float* logits, int64_t count, float* scores);
  // exp(x - largest x) / their sum
  void (*softmax)(const float* logits, int64_t count, float* scores);
  // choice = score + bias (bias may be null), at least kLowestChoice, and that for a NaN.
  void (*choice_scores)(const float* scores, const float* bias, int64_t count, float* choice);
  // The first index of the largest value.
  int (*argmax)(const float* x, int64_t count);
  // The largest value, and the one after it in falling order (-infinity where there is none).
  void (*largest_two)(const float* x, int64_t count, float* first, float* second);
};

// What is masked out is -infinity: less than any choice score, and than the sum of two.
inline constexpr float kLowestChoice = -0x1p126f;

// Below this, 127 / max|x| could overflow.
inline constexpr float kSmallestQuantized = 1e-30f;

namespace avx2 {
extern const RowCores kRowCores;
}
namespace avx512 {
extern const RowCores kRowCores;
}

}  // namespace cachalot
