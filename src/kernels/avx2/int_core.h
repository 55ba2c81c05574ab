#pragma once

#include "kernels/cores.h"

// The AVX2 integer core.
//
// Prepared rows: tiles of kTileRows rows (the last one of what is left), one after another. A tile of T rows has for
// each block of inputs
//
//   [inputs / 4][T] dwords of 4 int8; [T] float scales; [T] int32 negated sums of the int8
namespace cachalot::avx2 {

inline constexpr int kTileRows = 4;  // times a strip's two vectors: eight sums in registers

// Dwords that a row takes of a tile's block.
constexpr int64_t record_dwords(int block_inputs) {
  return block_inputs / 4 + 2;
}

void prepare(const MatrixShape& shape, const IntRows& rows, std::byte* prepared);
void multiply(const IntCoreArgs& args);

}  // namespace cachalot::avx2
