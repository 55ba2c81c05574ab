#include "kernels/matrix_pack.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>

#include "base/check.h"
#include "base/math.h"
#include "kernels/row_cores.h"

namespace cachalot {
namespace {

constexpr int kInt8Inputs = 64;        // of a kI8 block
constexpr int64_t kChunkInputs = 256;  // inputs of a strip that are expanded to floats at a time

// ---- formats that hold the file's own numbers: only their order changes ----

// `words[out][idx]` to `out[idx][16 outputs]`. A source line at a time: 16 rows may lie a power of two apart.
template <class Word>
void interleave(const std::byte* const (&rows)[kStrip], int num_rows, int64_t num_words, std::byte* out) {
  constexpr int64_t kWordsOfLine = 64 / sizeof(Word);
  for (int64_t begin = 0; begin < num_words; begin += kWordsOfLine) {
    const int64_t end = std::min(begin + kWordsOfLine, num_words);
    for (int row = 0; row < num_rows; row++) {
      for (int64_t word = begin; word < end; word++)
        std::memcpy(out + (word * kStrip + row) * static_cast<int64_t>(sizeof(Word)),
                    rows[row] + word * static_cast<int64_t>(sizeof(Word)), sizeof(Word));
    }
  }
}

// `num_inputs` inputs of a strip from `in` on; a last part of a word is filled up with zeros. `out` is zeroed.
template <class Word>
void interleave_inputs(const WeightSource& source, int64_t strip, int64_t in, int64_t num_inputs, std::byte* out) {
  const size_t input_bytes = dtype_size(source.format == SourceFormat::kPlain ? source.dtype : DType::kF8E4M3);
  const int num_rows = static_cast<int>(std::min<int64_t>(kStrip, source.out_count - strip * kStrip));
  const std::byte* rows[kStrip] = {};
  for (int row = 0; row < num_rows; row++) {
    const int64_t first = (source.out_begin + strip * kStrip + row) * source.in_features + source.in_begin + in;
    rows[row] = static_cast<const std::byte*>(source.data) + static_cast<size_t>(first) * input_bytes;
  }
  const size_t bytes = static_cast<size_t>(num_inputs) * input_bytes, whole_words = bytes / sizeof(Word);
  interleave<Word>(rows, num_rows, static_cast<int64_t>(whole_words), out);
  for (int row = 0; row < num_rows; row++)
    std::memcpy(out + (whole_words * kStrip + static_cast<size_t>(row)) * sizeof(Word),
                rows[row] + whole_words * sizeof(Word), bytes % sizeof(Word));
}

void pack_fp8_strip(const WeightSource& source, const MatrixShape& shape, int64_t strip, std::byte* out) {
  const int64_t blocks_of_row = ceil_div(source.in_features, source.block_cols);
  int64_t count = shape.first_block_inputs;
  for (int64_t in = 0; in < shape.in_features; in += count, count = shape.block_inputs, out += shape.block_bytes()) {
    count = std::min(count, shape.in_features - in);
    interleave_inputs<uint32_t>(source, strip, in, count, out);
    for (int64_t lane = 0; lane < std::min<int64_t>(kStrip, source.out_count - strip * kStrip); lane++) {
      const int64_t row = source.out_begin + strip * kStrip + lane;
      const int64_t scale = row / source.block_rows * blocks_of_row + (source.in_begin + in) / source.block_cols;
      std::memcpy(out + shape.scales_offset() + static_cast<size_t>(lane) * sizeof(float),
                  static_cast<const std::byte*>(source.scales) + static_cast<size_t>(scale) * sizeof(float),
                  sizeof(float));
    }
  }
}

// ---- all others, by way of floats ----

float widen(fp16 value) {
  if ((value.bits & 0x7c00) == 0x7c00) return static_cast<float>(value);  // infinite or NaN
  const float magnitude = std::bit_cast<float>(static_cast<uint32_t>(value.bits & 0x7fff) << 13) * 0x1p112f;
  return value.bits & 0x8000 ? -magnitude : magnitude;
}

const std::array<float, 256>& fp8_values() {
  static const std::array<float, 256> values = [] {
    std::array<float, 256> table;
    for (size_t bits = 0; bits < table.size(); bits++)
      table[bits] = static_cast<float>(fp8e4m3::from_bits(static_cast<uint8_t>(bits)));
    return table;
  }();
  return values;
}

// dequantize(), faster where whole models need it.
void read_values(const WeightSource& source, int64_t out, int64_t in, int64_t count, float* values) {
  const int64_t row = source.out_begin + out, first = row * source.in_features + source.in_begin + in;
  if (source.format == SourceFormat::kPlain && source.dtype == DType::kF16) {
    const auto* data = static_cast<const std::byte*>(source.data) + first * 2;
    for (int64_t idx = 0; idx < count; idx++) {
      fp16 value;
      std::memcpy(&value, data + idx * 2, sizeof(value));
      values[idx] = widen(value);
    }
  } else if (source.format == SourceFormat::kFp8Block) {
    const std::array<float, 256>& table = fp8_values();
    const auto* data = static_cast<const uint8_t*>(source.data) + first;
    const auto* scales = static_cast<const float*>(source.scales) +
                         row / source.block_rows * ceil_div(source.in_features, source.block_cols);
    for (int64_t idx = 0; idx < count;) {
      const int64_t column = source.in_begin + in + idx,
                    block_end = (column / source.block_cols + 1) * source.block_cols;
      const int64_t end = std::min(idx + block_end - column, count);
      const float scale = scales[column / source.block_cols];
      for (; idx < end; idx++) values[idx] = table[data[idx]] * scale;
    }
  } else {
    dequantize(source, out, in, count, values);
  }
}

// The nearest integer, ties to even, for |value| < 2^22; unlike nearbyint, the compiler makes vectors of it.
int32_t round_to_int(float value) {
  constexpr float kMagic = 12582912.f;  // 1.5 * 2^23: the last bit of a sum with it counts ones
  return std::bit_cast<int32_t>(value + kMagic) - std::bit_cast<int32_t>(kMagic);
}

// The rule of QuantizedRows, for one output's inputs of a kI8 block.
void pack_i8_output(const float* values, int64_t count, int lane, std::byte* block, float* scale) {
  float largest = 0;
  for (int64_t idx = 0; idx < count; idx++) largest = std::max(largest, std::fabs(values[idx]));
  if (!(largest >= kSmallestQuantized)) return;  // the strip is zeroed
  *scale = largest / 127.f;
  const float factor = 127.f / largest;
  int8_t quantized[kInt8Inputs] = {};
  for (int64_t place = 0; place < count; place++)
    quantized[place] = static_cast<int8_t>(round_to_int(values[place] * factor));
  for (int quad = 0; quad < kInt8Inputs / 4; quad++) std::memcpy(block + quad * 64 + lane * 4, quantized + quad * 4, 4);
}

// Inputs [in, in + count) of output `lane`; `out` is their first block.
void pack_values(const MatrixShape& shape, const float* values, int64_t count, int lane, std::byte* out) {
  for (int64_t begin = 0; begin < count; begin += shape.block_inputs, out += shape.block_bytes()) {
    const int64_t block_count = std::min<int64_t>(shape.block_inputs, count - begin);
    if (shape.format == MatrixFormat::kI8) {
      pack_i8_output(values + begin, block_count, lane, out,
                     reinterpret_cast<float*>(out + shape.scales_offset()) + lane);
    } else {
      for (int64_t place = 0; place < block_count; place++) {
        const float value = values[begin + place];
        if (shape.format == MatrixFormat::kF32) {
          reinterpret_cast<float*>(out)[lane * 2 + place] = value;
        } else {
          reinterpret_cast<bf16*>(out)[lane * 2 + place] = bf16(value);
        }
      }
    }
  }
}

void pack_values_strip(const WeightSource& source, const MatrixShape& shape, int64_t strip, std::byte* out) {
  static_assert(kChunkInputs % 64 == 0);  // whole blocks of the formats that come this way
  float values[kChunkInputs];
  const int num_outputs = static_cast<int>(std::min<int64_t>(kStrip, source.out_count - strip * kStrip));
  for (int64_t in = 0; in < shape.in_features; in += kChunkInputs) {
    const int64_t count = std::min(kChunkInputs, shape.in_features - in);
    std::byte* blocks = out + static_cast<size_t>(in / shape.block_inputs) * shape.block_bytes();
    for (int lane = 0; lane < num_outputs; lane++) {
      read_values(source, strip * kStrip + lane, in, count, values);
      pack_values(shape, values, count, lane, blocks);
    }
  }
}

bool holds_own_numbers(const WeightSource& source, const MatrixShape& shape) {
  return source.format == SourceFormat::kPlain &&
         ((source.dtype == DType::kBF16 && shape.format == MatrixFormat::kBF16) ||
          (source.dtype == DType::kF32 && shape.format == MatrixFormat::kF32));
}

void pack_strips(const WeightSource& source, const MatrixShape& shape, const StripRange& strips) {
  if (shape.format == MatrixFormat::kI4) {
    CHECK(source.format == SourceFormat::kAwq, "int4 matrices come from AWQ files only");
    return pack_awq(source, shape, strips);
  }
  CHECK(shape.format != MatrixFormat::kF8 || source.format == SourceFormat::kFp8Block,
        "fp8 matrices come from fp8 files only");
  for (int64_t strip = strips.begin; strip < strips.end; strip++) {
    std::byte* out = strips.out + static_cast<size_t>(strip - strips.begin) * strips.out_stride;
    std::memset(out, 0, shape.strip_bytes());
    if (shape.format == MatrixFormat::kF8) {
      pack_fp8_strip(source, shape, strip, out);
    } else if (!holds_own_numbers(source, shape)) {
      pack_values_strip(source, shape, strip, out);
    } else if (shape.format == MatrixFormat::kBF16) {
      interleave_inputs<uint32_t>(source, strip, 0, shape.in_features, out);
    } else {
      interleave_inputs<uint64_t>(source, strip, 0, shape.in_features, out);
    }
  }
}

}  // namespace

void pack_matrix(const WeightSource& source, const MatrixShape& shape, int64_t strip_begin, int64_t strip_end,
                 std::byte* matrix) {
  CHECK(0 <= strip_begin && strip_begin <= strip_end && strip_end <= shape.num_strips(), "strips [{}, {}) of {}",
        strip_begin, strip_end, shape.num_strips());
  CHECK(shape.out_features == source.out_count && shape.in_features == source.in_count,
        "a matrix [{}, {}] from a window [{}, {}]", shape.out_features, shape.in_features, source.out_count,
        source.in_count);
  pack_strips(
      source, shape,
      {strip_begin, strip_end, matrix + static_cast<size_t>(strip_begin) * shape.strip_bytes(), shape.strip_bytes()});
}

void pack_gate_up(const WeightSource& gate, const WeightSource& up, const MatrixShape& shape, int64_t strip_begin,
                  int64_t strip_end, std::byte* matrix) {
  CHECK(0 <= strip_begin && strip_begin <= strip_end && strip_end <= shape.num_strips(), "strips [{}, {}) of {}",
        strip_begin, strip_end, shape.num_strips());
  CHECK(shape.in_features == gate.in_count, "a matrix of {} inputs from a window of {}", shape.in_features,
        gate.in_count);
  const auto alternate = [&](const WeightSource& source, int64_t begin, int64_t end, int64_t odd) {
    if (begin < end)
      pack_strips(
          source, shape,
          {begin, end, matrix + static_cast<size_t>(2 * begin + odd) * shape.strip_bytes(), 2 * shape.strip_bytes()});
  };
  alternate(gate, (strip_begin + 1) / 2, (strip_end + 1) / 2, 0);
  alternate(up, strip_begin / 2, strip_end / 2, 1);
}

}  // namespace cachalot
