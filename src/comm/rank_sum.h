#pragma once

#include <algorithm>
#include <cstdint>

namespace cachalot {

// sum [count] = the ranks' values, added in fp32 in rank order, so that whoever adds them up gets the same bits.
// values_of(rank) gives a rank's [count] values.
template <class T, class ValuesOf>
void add_in_rank_order(int num_ranks, ValuesOf values_of, int64_t count, float* sum) {
  std::fill_n(sum, count, 0.f);
  for (int rank = 0; rank < num_ranks; rank++) {
    const T* values = values_of(rank);
    for (int64_t idx = 0; idx < count; idx++) sum[idx] += static_cast<float>(values[idx]);
  }
}

// rounded [count] = the same, rounded to the values' own type once. May be one of the ranks' values.
template <class T, class ValuesOf>
void add_and_round(int num_ranks, ValuesOf values_of, int64_t count, T* rounded) {
  constexpr int64_t kAtOnce = 1024;  // floats, which stay in the first-level cache while the ranks' values are added
  float sum[kAtOnce];
  for (int64_t begin = 0; begin < count; begin += kAtOnce) {
    const int64_t num_sums = std::min(kAtOnce, count - begin);
    add_in_rank_order<T>(num_ranks, [&](int rank) { return values_of(rank) + begin; }, num_sums, sum);
    for (int64_t idx = 0; idx < num_sums; idx++) rounded[begin + idx] = static_cast<T>(sum[idx]);
  }
}

}  // namespace cachalot
