#pragma once

#include <limits>

#include "kernels/cores.h"

// RowCores written once over a level's vectors (avx2/simd.h, avx512/simd.h). Included by one file of each level, and of
// internal linkage: what is compiled here for a level must not be taken for another one.
namespace cachalot {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// body(i, part) for the vectors of [0, count): part is Whole, and Tail for the rest.
template <class S, class Body>
CACHALOT_INLINE inline void for_each_vector(int64_t count, Body body) {
  int64_t i = 0;
  for (; i + S::kLanes <= count; i += S::kLanes) body(i, typename S::Whole());
  if (i < count) body(i, typename S::Tail(count - i));
}

// The rule of sums of cores.h: step(i, part, sum) gives `sum` with the elements from i on added to its lanes.
template <class S, class Step>
inline float sum_in_order(int64_t count, Step step) {
  constexpr int kVectors = kPartialSums / S::kLanes;
  typename S::Floats sums[kVectors];
  for (typename S::Floats& sum : sums) sum = S::zero();
  int64_t i = 0;
  for (; i + kPartialSums <= count; i += kPartialSums) {
#pragma GCC unroll 8
    for (int idx = 0; idx < kVectors; idx++) sums[idx] = step(i + idx * S::kLanes, typename S::Whole(), sums[idx]);
  }
#pragma GCC unroll 8
  for (int idx = 0; idx < kVectors; idx++, i += S::kLanes) {
    if (i + S::kLanes <= count) {
      sums[idx] = step(i, typename S::Whole(), sums[idx]);
    } else if (i < count) {
      sums[idx] = step(i, typename S::Tail(count - i), sums[idx]);
    }
  }
#pragma GCC unroll 8
  for (int half = kVectors / 2; half > 0; half /= 2) {
#pragma GCC unroll 8
    for (int idx = 0; idx < half; idx++) sums[idx] = sums[idx] + sums[idx + half];
  }
  return S::sum(sums[0]);
}

template <class S>
float sum_of_squares(const float* x, int64_t count) {
  return sum_in_order<S>(count, [&](int64_t i, auto part, typename S::Floats sum) {
    const typename S::Floats value = S::load(x + i, part);
    return S::fma(value, value, sum);
  });
}

template <class S>
float add_and_square(float* x, const float* delta, int64_t count) {
  return sum_in_order<S>(count, [&](int64_t i, auto part, typename S::Floats sum) {
    const typename S::Floats value = S::load(x + i, part) + S::load(delta + i, part);
    S::store(x + i, part, value);
    return S::fma(value, value, sum);
  });
}

template <class S>
void scale(const float* x, float factor, const float* weight, int64_t count, float* out) {
  const typename S::Floats factors = S::set(factor);
  for_each_vector<S>(count, [&](int64_t i, auto part) {
    S::store(out + i, part, S::load(x + i, part) * factors * S::load(weight + i, part));
  });
}

template <class S>
void quantize(const float* x, int64_t count, int group, int8_t* values, float* scales) {
  for (int64_t begin = 0; begin < count; begin += group) {
    const int64_t size = begin + group < count ? group : count - begin;
    typename S::Floats largest_lanes = S::zero();
    for_each_vector<S>(size, [&](int64_t i, auto part) {
      largest_lanes = S::max_bits(S::abs(S::load(x + begin + i, part)), largest_lanes);
    });
    constexpr unsigned kAll = (1u << S::kLanes) - 1;
    const bool are_numbers = S::equal(largest_lanes, largest_lanes) == kAll;
    const float largest = are_numbers ? S::max(largest_lanes) : std::numeric_limits<float>::quiet_NaN();
    const bool zero = largest < kSmallestQuantized;
    *scales++ = zero ? 0.f : largest / 127.f;
    const typename S::Floats factors = S::set(zero ? 0.f : 127.f / largest);
    for_each_vector<S>(size, [&](int64_t i, auto part) {
      S::store(values + begin + i, part, S::load(x + begin + i, part) * factors);
    });
  }
}

template <class S>
void rotate(const float* x, const float* cos, const float* sin, int64_t num_pairs, float* out) {
  for_each_vector<S>(2 * num_pairs, [&](int64_t i, auto part) {
    const typename S::Floats value = S::load(x + i, part);
    const typename S::Floats crossed = S::swap_pairs(value) * S::load_doubled(sin + i / 2, part);
    S::store(out + i, part, value * S::load_doubled(cos + i / 2, part) + S::negate_even(crossed));
  });
}

template <class S>
void rotate_halves(const float* x, const float* cos, const float* sin, int64_t num_pairs, float* out) {
  for_each_vector<S>(num_pairs, [&](int64_t i, auto part) {
    const typename S::Floats first = S::load(x + i, part), second = S::load(x + num_pairs + i, part),
                             c = S::load(cos + i, part), s = S::load(sin + i, part);
    S::store(out + i, part, first * c - second * s);
    S::store(out + num_pairs + i, part, first * s + second * c);
  });
}

template <class S, class From, class To>
void convert(const From* in, int64_t count, To* out) {
  for_each_vector<S>(count, [&](int64_t i, auto part) { S::store(out + i, part, S::load(in + i, part)); });
}

template <class S, class T>
void add_weighted(const T* const* rows, const float* weights, int num_rows, int64_t count, bool accumulate,
                  float* sum) {
  // More rows than the hardware prefetchers follow: told a kilobyte ahead, whole cache lines of each row in turn come
  // at the speed of one plain read (without: two thirds of it with AVX-512, a third with AVX2).
  constexpr int64_t kLine = 64 / sizeof(T), kAhead = 1024 / sizeof(T);
  constexpr int kVectors = 8;
  constexpr int64_t kStep = kVectors * S::kLanes;
  constexpr typename S::Whole kWhole;
  const int64_t whole = count / kStep * kStep;
  for (int64_t i = 0; i < whole; i += kStep) {
    typename S::Floats sums[kVectors];
#pragma GCC unroll 8
    for (int idx = 0; idx < kVectors; idx++)
      sums[idx] = accumulate ? S::load(sum + i + idx * S::kLanes, kWhole) : S::zero();
    for (int k = 0; k < num_rows; k++) {
      const typename S::Floats weight = S::set(weights[k]);
#pragma GCC unroll 8
      for (int64_t line = 0; line < kStep; line += kLine) S::prefetch(rows[k] + i + kAhead + line);
#pragma GCC unroll 8
      for (int idx = 0; idx < kVectors; idx++) {
        sums[idx] = S::fma(weight, S::load(rows[k] + i + idx * S::kLanes, kWhole), sums[idx]);
      }
    }
#pragma GCC unroll 8
    for (int idx = 0; idx < kVectors; idx++) S::store(sum + i + idx * S::kLanes, kWhole, sums[idx]);
  }
  for_each_vector<S>(count - whole, [&](int64_t rest, auto part) {
    const int64_t i = whole + rest;
    typename S::Floats value = accumulate ? S::load(sum + i, part) : S::zero();
    for (int k = 0; k < num_rows; k++) value = S::fma(S::set(weights[k]), S::load(rows[k] + i, part), value);
    S::store(sum + i, part, value);
  });
}

template <class S>
void sigmoid(const float* logits, int64_t count, float* scores) {
  const typename S::Floats one = S::set(1.f);
  for_each_vector<S>(count, [&](int64_t i, auto part) {
    const typename S::Floats x = S::load(logits + i, part);
    const typename S::Floats small = S::exp_nonpositive(S::zero() - S::abs(x));
    S::store(scores + i, part, S::select_negative(x, small, one) / (one + small));
  });
}

template <class S>
float largest(const float* x, int64_t count) {
  typename S::Floats lanes = S::set(-kInfinity);
  for_each_vector<S>(count, [&](int64_t i, auto part) { lanes = S::max(S::load_or(x + i, part, lanes), lanes); });
  return S::max(lanes);
}

template <class S>
void softmax(const float* logits, int64_t count, float* scores) {
  const typename S::Floats top = S::set(largest<S>(logits, count));
  const float total = sum_in_order<S>(count, [&](int64_t i, auto part, typename S::Floats sum) {
    const typename S::Floats value = S::exp_nonpositive(S::load_or(logits + i, part, S::set(-kInfinity)) - top);
    S::store(scores + i, part, value);
    return sum + value;
  });
  const typename S::Floats sum = S::set(total);
  for_each_vector<S>(count, [&](int64_t i, auto part) { S::store(scores + i, part, S::load(scores + i, part) / sum); });
}

template <class S>
void choice_scores(const float* scores, const float* bias, int64_t count, float* choice) {
  const typename S::Floats lowest = S::set(kLowestChoice);
  for_each_vector<S>(count, [&](int64_t i, auto part) {
    typename S::Floats value = S::load(scores + i, part);
    if (bias) value = value + S::load(bias + i, part);
    S::store(choice + i, part, S::max(value, lowest));
  });
}

template <class S>
int argmax(const float* x, int64_t count) {
  const typename S::Floats top = S::set(largest<S>(x, count));
  int64_t i = 0;
  for (; i + S::kLanes <= count; i += S::kLanes) {
    const unsigned equal = S::equal(S::load(x + i, typename S::Whole()), top);
    if (equal != 0) return static_cast<int>(i) + __builtin_ctz(equal);
  }
  // The rest holds it. A zero of the unused lanes cannot come first.
  const unsigned equal = i < count ? S::equal(S::load(x + i, typename S::Tail(count - i)), top) : 0;
  return equal != 0 ? static_cast<int>(i) + __builtin_ctz(equal) : 0;
}

template <class S>
void largest_two(const float* x, int64_t count, float* first, float* second) {
  typename S::Floats firsts = S::set(-kInfinity), seconds = firsts;
  for_each_vector<S>(count, [&](int64_t i, auto part) {
    const typename S::Floats value = S::load_or(x + i, part, S::set(-kInfinity));
    seconds = S::max(seconds, S::min(firsts, value));
    firsts = S::max(firsts, value);
  });
  *first = S::max(firsts);
  // The second is the largest of all others: equal to the first if two lanes have that.
  const unsigned equal = S::equal(firsts, S::set(*first));
  const typename S::Floats others = S::max(seconds, S::replace(firsts, S::set(*first), S::set(-kInfinity)));
  *second = __builtin_popcount(equal) > 1 ? *first : S::max(others);
}

template <class S>
constexpr RowCores row_cores() {
  return {
      .sum_of_squares = sum_of_squares<S>,
      .add_and_square = add_and_square<S>,
      .scale = scale<S>,
      .quantize = quantize<S>,
      .rotate = rotate<S>,
      .rotate_halves = rotate_halves<S>,
      .to_bf16 = convert<S, float, bf16>,
      .from_bf16 = convert<S, bf16, float>,
      .from_fp16 = convert<S, fp16, float>,
      .add_weighted_f32 = add_weighted<S, float>,
      .add_weighted_bf16 = add_weighted<S, bf16>,
      .sigmoid = sigmoid<S>,
      .softmax = softmax<S>,
      .choice_scores = choice_scores<S>,
      .argmax = argmax<S>,
      .largest_two = largest_two<S>,
  };
}

}  // namespace
}  // namespace cachalot
