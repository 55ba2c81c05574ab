#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/check.h"
#include "kernels/cores.h"

namespace cachalot::reference {
namespace {

template <class T>
T load(const std::byte* data, int64_t idx) {
  T value;
  std::memcpy(&value, data + idx * static_cast<int64_t>(sizeof(T)), sizeof(T));
  return value;
}

int nibble(const std::byte* data, int64_t byte, bool high) {
  return (load<uint8_t>(data, byte) >> (high ? 4 : 0)) & 15;
}

// Weight `place` of output `out` of a block (see matrix.h), not yet scaled.
float unscaled_weight(const MatrixShape& shape, const std::byte* block, int out, int place) {
  const int quad = place / 4 * 64 + out * 4 + place % 4;  // [inputs / 4][16 outputs][4 inputs]
  switch (shape.format) {
    case MatrixFormat::kF32:
      return load<float>(block, out * 2 + place);
    case MatrixFormat::kBF16:
      return static_cast<float>(load<bf16>(block, out * 2 + place));
    case MatrixFormat::kF8:
      return static_cast<float>(load<fp8e4m3>(block, quad));
    case MatrixFormat::kI8:
      return static_cast<float>(load<int8_t>(block, quad));
    case MatrixFormat::kI4: {
      const std::byte* zeros = block + shape.block_inputs * 8 + 32;
      const int zero = nibble(zeros, (out & 1) * 4 + (out >> 2), (out >> 1) & 1);
      return static_cast<float>(nibble(block, place / 8 * 64 + out * 4 + place % 4, place & 4) - zero);
    }
  }
  CHECK(false);
}

float block_scale(const MatrixShape& shape, const std::byte* block, int out) {
  switch (shape.format) {
    case MatrixFormat::kF32:
    case MatrixFormat::kBF16:
      return 1;
    case MatrixFormat::kF8:
    case MatrixFormat::kI8:
      return load<float>(block + shape.block_inputs * 16, out);
    case MatrixFormat::kI4:
      return static_cast<float>(load<fp16>(block + shape.block_inputs * 8, out));
  }
  CHECK(false);
}

// Adds the inputs [input_begin, input_begin + count) of all rows to one output's results; they are the first `count`
// places of the span that starts with `block`.
void add_span(const FloatCoreArgs& args, const std::byte* block, int out, int64_t input_begin, int64_t count,
              float* results) {
  const MatrixShape& shape = args.matrix.shape;
  float weights[kFloatSpan];
  for (int64_t place = 0; place < count; place++) {
    const int64_t block_idx = place / shape.block_inputs;
    weights[place] = unscaled_weight(shape, block + block_idx * static_cast<int64_t>(shape.block_bytes()), out,
                                     static_cast<int>(place % shape.block_inputs));
  }
  const float scale = block_scale(shape, block, out);
  for (int64_t row = 0; row < args.num_rows; row++) {
    float sums[4] = {};
    for (int64_t place = 0; place < count; place++)
      sums[place % 4] = std::fma(weights[place], args.rows[row][input_begin + place], sums[place % 4]);
    float& result = results[row * args.out_stride];
    result = std::fma((sums[0] + sums[2]) + (sums[1] + sums[3]), scale, result);
  }
}

}  // namespace

void float_core(const FloatCoreArgs& args) {
  const MatrixShape& shape = args.matrix.shape;
  const int64_t span = shape.block_inputs == 2 ? kFloatSpan : shape.block_inputs;
  for (int64_t strip = args.strip_begin; strip < args.strip_end; strip++) {
    for (int out = 0; out < kStrip; out++) {
      float* results = args.out + (strip - args.strip_begin) * kStrip + out;
      for (int64_t row = 0; row < args.num_rows; row++) results[row * args.out_stride] = 0;
      const std::byte* block = args.matrix.data + static_cast<size_t>(strip) * shape.strip_bytes();
      int64_t count = shape.format == MatrixFormat::kF8 ? shape.first_block_inputs : span;  // a cut matrix starts short
      for (int64_t input = 0; input < shape.in_features; input += count, count = span) {
        if (input > 0) block += span / shape.block_inputs * static_cast<int64_t>(shape.block_bytes());
        count = std::min(count, shape.in_features - input);
        add_span(args, block, out, input, count, results);
      }
    }
  }
}

}  // namespace cachalot::reference
