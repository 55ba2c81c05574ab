#pragma once

#include <algorithm>
#include <cstdint>
#include <span>

#include "base/check.h"
#include "kernels/ops.h"

// How the drivers of attention lay out their scratch:
//   one packed tile a thread (keys, then values)
//   absorbed only: [rows][heads] maxima and sums, the list of pieces, and the states of later spans
namespace cachalot {

// The states of all heads of one row over some positions.
struct AttentionStates {
  float* max = nullptr;  // [num_heads]
  float* sum = nullptr;
  float* acc = nullptr;  // [num_heads, dim], acc_stride apart
  int64_t acc_stride = 0;
};

class AttentionScratch {
 public:
  // A span of positions of one row of absorbed attention; a later one (span > 0) has states of its own in `slot`.
  struct Piece {
    int32_t row = 0, span = 0, slot = -1;
  };
  static constexpr int kSlotsPerThread = 4;  // spans of long contexts that are worked on at a time

  struct Sizes {
    int64_t num_threads = 0, key_dim = 0, value_dim = 0;
    int64_t num_rows = 0, num_heads = 0;  // absorbed only
    bool later_spans = false;

    int64_t num_slots() const { return later_spans ? num_threads * kSlotsPerThread : 0; }
  };

  // Of a region that begins at `data`; with null, only the size is of use.
  AttentionScratch(const Sizes& sizes, std::byte* data) : sizes_(sizes), data_(data) {
    key_floats_ = round_up(sizes.key_dim * kAttentionTile);
    tile_floats_ = key_floats_ + round_up(round_up(sizes.value_dim, kWidestPanel) * kAttentionTile);
    tiles_ = take<float>(tile_floats_ * sizes.num_threads);
    totals_ = take<float>(2 * sizes.num_rows * sizes.num_heads);
    slots_ = take<float>(sizes.num_slots() * sizes.num_heads * (sizes.value_dim + 2));
    pieces_ = take<Piece>(sizes.num_rows + sizes.num_slots());
  }

  size_t bytes() const { return static_cast<size_t>(offset_); }

  float* keys(int thread_idx) const { return at<float>(tiles_) + thread_idx * tile_floats_; }
  float* values(int thread_idx) const { return keys(thread_idx) + key_floats_; }
  Piece* pieces() const { return at<Piece>(pieces_); }

  AttentionStates totals(int64_t row, View<float, 2> acc) const {
    float* max = at<float>(totals_) + 2 * row * sizes_.num_heads;
    return {max, max + sizes_.num_heads, acc.data(), acc.stride(0)};
  }
  AttentionStates slot(int64_t slot_idx) const {
    float* max = at<float>(slots_) + slot_idx * sizes_.num_heads * (sizes_.value_dim + 2);
    return {max, max + sizes_.num_heads, max + 2 * sizes_.num_heads, sizes_.value_dim};
  }

 private:
  static constexpr int64_t kWidestPanel = 32, kLine = 64;
  static int64_t round_up(int64_t value, int64_t unit = kLine) { return (value + unit - 1) / unit * unit; }

  template <class T>
  int64_t take(int64_t count) {
    const int64_t begin = offset_;
    offset_ = round_up(offset_ + count * static_cast<int64_t>(sizeof(T)));
    return begin;
  }
  template <class T>
  T* at(int64_t offset) const {
    return reinterpret_cast<T*>(data_ + offset);
  }

  Sizes sizes_;
  std::byte* data_;
  int64_t key_floats_ = 0, tile_floats_ = 0, tiles_ = 0, totals_ = 0, slots_ = 0, pieces_ = 0, offset_ = 0;
};

}  // namespace cachalot
