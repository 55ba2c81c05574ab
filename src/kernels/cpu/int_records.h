#pragma once

#include "base/math.h"
#include "kernels/cores.h"

// What the integer cores of all levels have in common.
//
// Prepared rows: tiles of rows, one after another. A tile of T rows has for each block of inputs
//
//   [inputs / 4][T] dwords of 4 int8; [T] float scales; [T] int32 negated sums of the int8
//
// so that one broadcast feeds four inputs of a row to all outputs of a vector.
namespace cachalot {
namespace {

// Dwords that a row takes of a tile's block.
constexpr int64_t record_dwords(int block_inputs) {
  return block_inputs / 4 + 2;
}

// Of any shape, with some rows of padding behind the last tile.
template <int kPaddingRows>
size_t prepared_bytes(int64_t in_features, int64_t num_rows) {
  constexpr int64_t kSmallestBlock = 32, kLargestBlock = 64;
  const int64_t blocks = ceil_div(in_features, kLargestBlock) * (kLargestBlock / kSmallestBlock);
  return static_cast<size_t>((num_rows + kPaddingRows) * blocks * record_dwords(kSmallestBlock)) * sizeof(int32_t);
}

// The blocks of integer matrices (matrix.h). A vector of kI4 is eight inputs, four in low nibbles, four in high ones.
template <int kBlockInputs>
struct Int4Layout {
  static constexpr bool kNibbles = true;
  static constexpr int kInputs = kBlockInputs, kQuads = kInputs / 4, kVectors = kInputs / 8;
  static constexpr int64_t kScales = kVectors * 64, kZeros = kScales + 32, kBytes = kZeros + 8;
};
struct Int8Layout {
  static constexpr bool kNibbles = false;
  static constexpr int kInputs = 64, kQuads = kInputs / 4, kVectors = kQuads;
  static constexpr int64_t kScales = kVectors * 64, kBytes = kScales + 64;
};

// body.operator()<Block>() with the level's block of the shape.
template <template <int> class Int4, class Int8, class Body>
void with_block_of(const MatrixShape& shape, Body body) {
  if (shape.format == MatrixFormat::kI8) {
    body.template operator()<Int8>();
  } else if (shape.block_inputs == 64) {
    body.template operator()<Int4<64>>();
  } else {
    body.template operator()<Int4<32>>();
  }
}

}  // namespace
}  // namespace cachalot
