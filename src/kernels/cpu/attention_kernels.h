#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/ops.h"

// The inner loops of attention, one implementation an instruction level (avx2/, avx512/). The drivers (cpu/attention.h)
// hand them tiles of positions, whose keys and values they first pack for all the rows that attend to them:
//   keys    panels of two vectors of positions, each [key_dim][2 vectors]
//   values  panels of two vectors of dimensions, each [kAttentionTile positions][2 vectors]
namespace cachalot {

// Rows that attend to one packed tile: rows of one head (expanded), or heads of one row (absorbed).
struct AttentionTile {
  // The query, in one or two pieces that follow one another in the key's dimensions; rows are a stride apart.
  struct Piece {
    const float* data = nullptr;
    int64_t stride = 0, dim = 0;
  };
  Piece query[2];
  int64_t num_rows = 0;
  const float* keys = nullptr;
  const float* values = nullptr;
  int64_t value_dim = 0;
  int64_t num_positions = 0;  // of the tile; row r sees the first min(visible + r * visible_step, num_positions)
  int64_t visible = 0, visible_step = 0;  // rows that see none keep their state
  float softmax_scale = 0;
  float* acc = nullptr;  // [num_rows, value_dim]
  float* max = nullptr;  // [num_rows]
  float* sum = nullptr;  // [num_rows]
  int64_t acc_stride = 0, state_stride = 0;
};

struct AttentionKernels {
  // rows: the kAttentionTile positions' first elements (those past num_positions: any that can be read), floats or
  // bf16. Dimensions [first_dim, first_dim + dim) of keys of key_dim.
  void (*pack_keys)(const std::byte* const* rows, DType dtype, int64_t num_positions, int64_t first_dim, int64_t dim,
                    int64_t key_dim, float* keys);
  void (*pack_values)(const std::byte* const* rows, DType dtype, int64_t num_positions, int64_t dim, float* values);
  void (*attend)(const AttentionTile& tile);
  // acc[d] = fma(acc[d], factor, later[d] * later_factor)
  void (*merge)(float* acc, float factor, const float* later, float later_factor, int64_t dim);
  void (*divide)(float* acc, float divisor, int64_t dim);
};

namespace avx2 {
extern const AttentionKernels kAttentionKernels;
}
namespace avx512 {
extern const AttentionKernels kAttentionKernels;
}

}  // namespace cachalot
