#pragma once

#include <cstdint>

#include "kernels/cores.h"

// The parts of the AVX-512 integer core, one a file.
//
// Prepared rows: tiles of rows, one after another. A tile of T rows has for each block of inputs
//
//   [inputs / 4][T] dwords of 4 int8; [T] float scales; [T] int32 negated sums of the int8
//
// so that one broadcast feeds four inputs of a row to the sixteen outputs of a strip. vpdpbusd multiplies unsigned by
// signed bytes: where the weights are signed (kI8, and the panel of many rows), the int8 of the rows are biased by 128
// and the sums corrected by what the weights alone determine.
namespace cachalot::avx512 {

inline constexpr int kFewTileRows = 12;   // most rows of a tile that keeps its sums in registers beside the weights
inline constexpr int kFewRows = 36;       // up to here weights are unpacked once a tile, above once for all rows
inline constexpr int kPanelTileRows = 6;  // rows of a tile over an unpacked panel, at most

// How a number of rows is cut into tiles.
struct RowTiles {
  bool panel;
  int tile_rows;  // of all tiles, but for the last one where there is no panel
  int num_tiles;

  explicit constexpr RowTiles(int64_t num_rows) : panel(num_rows > kFewRows) {
    const int rows = static_cast<int>(num_rows);
    if (!panel) {
      num_tiles = (rows + kFewTileRows - 1) / kFewTileRows;
      tile_rows = (rows + num_tiles - 1) / num_tiles;
      return;
    }
    tile_rows = kPanelTileRows;  // or fewer, where that leaves less padding
    num_tiles = (rows + tile_rows - 1) / tile_rows;
    for (int fewer = kPanelTileRows - 1; fewer >= kPanelTileRows - 2; fewer--) {
      const int tiles = (rows + fewer - 1) / fewer;
      if (tiles * fewer < num_tiles * tile_rows) tile_rows = fewer, num_tiles = tiles;
    }
  }
  // Rows of tile `idx` (the panel's tiles are padded).
  constexpr int rows_of_tile(int idx, int64_t num_rows) const {
    const int left = static_cast<int>(num_rows) - idx * tile_rows;
    return panel || left > tile_rows ? tile_rows : left;
  }
};

// Dwords that a row takes of a tile's block.
constexpr int64_t record_dwords(int block_inputs) {
  return block_inputs / 4 + 2;
}

void prepare(const MatrixShape& shape, const IntRows& rows, std::byte* prepared);
void multiply_few_rows(const IntCoreArgs& args);
void multiply_many_rows(const IntCoreArgs& args);

}  // namespace cachalot::avx512
