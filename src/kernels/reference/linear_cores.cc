#include <algorithm>
#include <cmath>

#include "kernels/cores.h"
#include "kernels/operations.h"

namespace cachalot::reference {
namespace {

// Adds the inputs [begin, begin + count) of all rows, a span, to one output's results.
void add_span(const FloatCoreArgs& args, int64_t out, int64_t begin, int64_t count, float* results) {
  float weights[kFloatSpan];
  for (int64_t place = 0; place < count; place++)
    weights[place] = packed_element(args.matrix, out, begin + place).value;
  const float scale = packed_element(args.matrix, out, begin).scale;
  for (int64_t row = 0; row < args.num_rows; row++) {
    float sums[4] = {};
    for (int64_t place = 0; place < count; place++)
      sums[place % 4] = std::fma(weights[place], args.rows[row][begin + place], sums[place % 4]);
    float& result = results[row * args.out_stride];
    result = std::fma((sums[0] + sums[2]) + (sums[1] + sums[3]), scale, result);
  }
}

void float_core(const FloatCoreArgs& args) {
  const MatrixShape& shape = args.matrix.shape;
  const int64_t span = shape.block_inputs == 2 ? kFloatSpan : shape.block_inputs;
  for (int64_t out = args.strip_begin * kStrip; out < args.strip_end * kStrip; out++) {
    float* results = args.out + out - args.strip_begin * kStrip;
    for (int64_t row = 0; row < args.num_rows; row++) results[row * args.out_stride] = 0;
    int64_t count = shape.format == MatrixFormat::kF8 ? shape.first_block_inputs : span;  // a cut matrix starts short
    for (int64_t begin = 0; begin < shape.in_features; begin += count, count = span) {
      count = std::min(count, shape.in_features - begin);
      add_span(args, out, begin, count, results);
    }
  }
}

// ---- the integer core, and the rest ----

// Prepared rows stay as they are: the values of all rows, then their scales, both padded to whole blocks.
struct PreparedRows {
  PreparedRows(const MatrixShape& shape, int64_t num_rows, std::byte* memory)
      : num_blocks(shape.num_blocks()),
        num_values(num_blocks * shape.block_inputs),
        values(reinterpret_cast<int8_t*>(memory)),
        scales(reinterpret_cast<float*>(memory + (num_values * num_rows + 63) / 64 * 64)) {}
  int64_t num_blocks, num_values;
  int8_t* values;  // [num_rows, num_values]
  float* scales;   // [num_rows, num_blocks]
};

size_t prepared_bytes(int64_t in_features, int64_t num_rows) {
  const auto rows = static_cast<size_t>(num_rows), padded = static_cast<size_t>((in_features + 63) / 64 * 64);
  return rows * padded + 64 + rows * padded / 32 * sizeof(float);
}

void prepare(const MatrixShape& shape, const IntRows& rows, std::byte* memory) {
  const PreparedRows prepared(shape, rows.num_rows, memory);
  for (int64_t row = 0; row < rows.num_rows; row++) {
    int8_t* values = prepared.values + row * prepared.num_values;
    std::fill(std::copy_n(rows.values[row], shape.in_features, values), values + prepared.num_values, int8_t{0});
    std::copy_n(rows.scales[row], prepared.num_blocks, prepared.scales + row * prepared.num_blocks);
  }
}

void multiply(const IntCoreArgs& args) {
  constexpr int kMostInputs = 64;
  const MatrixShape& shape = args.shape;
  const PreparedRows rows(shape, args.num_rows, const_cast<std::byte*>(args.prepared));
  std::fill_n(args.out, args.num_rows * 2 * kStrip, 0.f);
  for (int strip = 0; strip < 2; strip++) {
    const PackedMatrix matrix{shape, args.strips[strip]};
    for (int64_t block = 0; block < rows.num_blocks; block++) {
      for (int lane = 0; lane < kStrip; lane++) {
        int32_t weights[kMostInputs];
        for (int place = 0; place < shape.block_inputs; place++)
          weights[place] = static_cast<int32_t>(packed_element(matrix, lane, block * shape.block_inputs + place).value);
        const float scale = packed_element(matrix, lane, block * shape.block_inputs).scale;
        for (int64_t row = 0; row < args.num_rows; row++) {
          const int8_t* values = rows.values + row * rows.num_values + block * shape.block_inputs;
          int32_t sum = 0;
          for (int place = 0; place < shape.block_inputs; place++) sum += weights[place] * values[place];
          float& out = args.out[(2 * row + strip) * kStrip + lane];
          out = std::fma(static_cast<float>(sum), scale * rows.scales[row * rows.num_blocks + block], out);
        }
      }
    }
  }
}

void silu_product(float* gate, const float* up, int64_t stride, int64_t num_rows) {
  for (int64_t row = 0; row < num_rows; row++) {
    for (int64_t idx = row * stride; idx < row * stride + kStrip; idx++) {
      const float x = gate[idx], e = exp_nonpositive(-std::fabs(x));
      gate[idx] = (x < 0 ? x * e : x) / (1 + e) * up[idx];
    }
  }
}

void store_bf16(const float* tile, int64_t stride, int64_t num_rows, bf16* out, int64_t out_stride) {
  for (int64_t row = 0; row < num_rows; row++) {
    for (int column = 0; column < kStrip; column++) out[row * out_stride + column] = bf16(tile[row * stride + column]);
  }
}

constexpr IntCore kIntCore = {.prepared_bytes = prepared_bytes, .prepare = prepare, .multiply = multiply};

}  // namespace

constinit const LinearCores kLinearCores = {
    .float_core = float_core,
    .int_core = &kIntCore,
    .quantize = quantize_row,
    .silu_product = silu_product,
    .store_bf16 = store_bf16,
};

}  // namespace cachalot::reference
