#include "kernels/cpu/per_head_linear.h"

#include <algorithm>
#include <cstring>

#include "base/math.h"

namespace cachalot {
namespace {

constexpr int64_t kRowTile = 64;          // rows a call of the core: what a stack array of row addresses holds
constexpr size_t kChunkBytes = 64 << 10;  // weights that a thread takes at a time: long enough for the prefetchers

// Strips [begin, end) of one head for rows [row_begin, row_begin + num_rows), at most kRowTile.
void linear_of_head(FloatCore core, const PackedMatrix& matrix, const float* const* rows, int64_t num_rows,
                    int64_t begin, int64_t end, float* out, int64_t out_stride) {
  const int64_t whole_end = std::min(end, matrix.shape.out_features / kStrip);
  FloatCoreArgs args{.matrix = matrix,
                     .strip_begin = begin,
                     .strip_end = whole_end,
                     .rows = rows,
                     .num_rows = num_rows,
                     .out = out + begin * kStrip,
                     .out_stride = out_stride};
  if (begin < whole_end) core(args);
  if (whole_end == end) return;
  // The last strip's padding must not reach the next head's outputs.
  alignas(64) float padded[kRowTile][kStrip];
  args.strip_begin = whole_end;
  args.strip_end = end;
  args.out = padded[0];
  args.out_stride = kStrip;
  core(args);
  const auto count = static_cast<size_t>(matrix.shape.out_features - whole_end * kStrip);
  for (int64_t row = 0; row < num_rows; row++)
    std::memcpy(out + row * out_stride + whole_end * kStrip, padded[row], count * sizeof(float));
}

}  // namespace

void per_head_linear(FloatCore core, const OpsContext& context, View<const float, 3> x,
                     std::span<const PackedMatrix> matrices, View<float, 3> out) {
  if (matrices.empty() || x.extent(0) == 0) return;
  const MatrixShape& shape = matrices[0].shape;  // the same for all heads
  const auto strips_of_chunk = static_cast<int64_t>(std::max<size_t>(kChunkBytes / shape.strip_bytes(), 1));
  const int64_t chunks = ceil_div(shape.num_strips(), strips_of_chunk);
  context.threads->parallel_for(x.extent(1) * chunks, 1, [&](int64_t item_begin, int64_t item_end, int) {
    const float* rows[kRowTile];
    for (int64_t item = item_begin; item < item_end; item++) {
      const int64_t head = item / chunks, begin = item % chunks * strips_of_chunk;
      const int64_t end = std::min(begin + strips_of_chunk, shape.num_strips());
      for (int64_t row_begin = 0; row_begin < x.extent(0); row_begin += kRowTile) {
        const int64_t num_rows = std::min(kRowTile, x.extent(0) - row_begin);
        for (int64_t row = 0; row < num_rows; row++) rows[row] = &x(row_begin + row, head, 0);
        linear_of_head(core, matrices[static_cast<size_t>(head)], rows, num_rows, begin, end, &out(row_begin, head, 0),
                       out.stride(0));
      }
    }
  });
}

}  // namespace cachalot
