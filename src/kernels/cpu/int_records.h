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

// The blocks of integer matrices (matrix.h). A vector of nibbles is eight inputs, four in low nibbles, four in high
// ones. What kF4's stand for is looked up in a table of unsigned bytes, kF4Zero more than the weights: from there on
// they are nibbles with that zero point.
inline constexpr int kF4Zero = 12;
constexpr int8_t kF4Biased[16] = {12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0};
template <int kBlockInputs, MatrixFormat kFormat>
struct Int4Layout {
  static constexpr bool kNibbles = true, kIsTable = kFormat == MatrixFormat::kF4,
                        kHasHalfScales = kFormat == MatrixFormat::kI4;  // fp16, else bf16
  static constexpr int kInputs = kBlockInputs, kQuads = kInputs / 4, kVectors = kInputs / 8;
  static constexpr int64_t kScales = kVectors * 64, kZeros = kScales + 32, kBytes = kZeros + (kIsTable ? 0 : 8);
};
struct Int8Layout {
  static constexpr bool kNibbles = false;
  static constexpr int kInputs = 64, kQuads = kInputs / 4, kVectors = kQuads;
  static constexpr int64_t kScales = kVectors * 64, kBytes = kScales + 64;
};

// body.operator()<Block>() with the level's block of the shape.
template <template <int, MatrixFormat> class Int4, class Int8, class Body>
void with_block_of(const MatrixShape& shape, Body body) {
  constexpr auto kI4 = MatrixFormat::kI4, kI4Bf16 = MatrixFormat::kI4Bf16, kF4 = MatrixFormat::kF4;
  if (shape.format == MatrixFormat::kI8) {
    body.template operator()<Int8>();
  } else if (shape.format == kF4) {
    body.template operator()<Int4<32, kF4>>();
  } else if (shape.format == kI4) {
    shape.block_inputs == 64 ? body.template operator()<Int4<64, kI4>>() : body.template operator()<Int4<32, kI4>>();
  } else if (shape.block_inputs == 64) {
    body.template operator()<Int4<64, kI4Bf16>>();
  } else {
    body.template operator()<Int4<32, kI4Bf16>>();
  }
}

}  // namespace
}  // namespace cachalot
