#include "weights/weight_quantizer.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "base/math.h"
#include "tensor/dtype.h"

namespace cachalot {
namespace {

template <class Number, class Bits>
std::vector<float> table_of(int num_patterns) {
  std::vector<float> table(static_cast<size_t>(num_patterns));
  for (int bits = 0; bits < num_patterns; bits++)
    table[bits] = static_cast<float>(Number::from_bits(static_cast<Bits>(bits)));
  return table;
}

}  // namespace

RowReader::RowReader(const WeightSource& source) : source_(source) {
  CHECK(source.format != SourceFormat::kAwq);
  CHECK(source.out_count == source.out_features && source.in_count == source.in_features);
  if (source.dtype == DType::kF16) table_ = table_of<fp16, uint16_t>(1 << 16);
  if (source.dtype == DType::kF8E4M3) table_ = table_of<fp8e4m3, uint8_t>(1 << 8);
}

void RowReader::read(int64_t row, float* values) const {
  const int64_t in = source_.in_features;
  switch (source_.dtype) {
    case DType::kF32:
      std::copy_n(static_cast<const float*>(source_.data) + row * in, in, values);
      return;
    case DType::kBF16: {
      const bf16* bits = static_cast<const bf16*>(source_.data) + row * in;
      for (int64_t idx = 0; idx < in; idx++) values[idx] = static_cast<float>(bits[idx]);
      return;
    }
    case DType::kF16: {
      const uint16_t* bits = static_cast<const uint16_t*>(source_.data) + row * in;
      for (int64_t idx = 0; idx < in; idx++) values[idx] = table_[bits[idx]];
      return;
    }
    case DType::kF8E4M3: {
      const uint8_t* bits = static_cast<const uint8_t*>(source_.data) + row * in;
      const int64_t blocks = ceil_div(in, source_.block_cols);
      const float* scales = static_cast<const float*>(source_.scales) + row / source_.block_rows * blocks;
      for (int64_t block = 0; block < blocks; block++) {
        const int64_t end = std::min(in, (block + 1) * source_.block_cols);
        for (int64_t idx = block * source_.block_cols; idx < end; idx++)
          values[idx] = table_[bits[idx]] * scales[block];
      }
      return;
    }
    default:
      CHECK(false, "{} is no weight", dtype_name(source_.dtype));
  }
}

namespace {

constexpr int kLanes = 8;  // sums kept apart: a fixed count of them becomes vector code
constexpr float kMaxNibble = 15, kMinHalf = 0x1p-24f, kMaxHalf = 65504, kMaxE4m3 = 448;
constexpr int kNumRanges = 9;  // 1 to 0.6 of the widest: for normally distributed weights the best is 0.85 to 0.95
constexpr float kRangeStep = 0.05f;

// To the nearest whole number, ties to even: for |value| < 2^22 the sum has no bits left for a fraction.
float round_nearest(float value) {
  constexpr float kShift = 0x1.8p23f;
  return (value + kShift) - kShift;
}

// std::clamp gives back references, which the compiler does not turn into vector code.
float clamped(float value, float low, float high) {
  value = value < low ? low : value;
  return value > high ? high : value;
}

float nibble_of(float weight, float inverse_scale, float zero) {
  // Clamped before it is rounded: a weight far outside a narrow range must not leave the reach of round_nearest.
  return round_nearest(clamped(weight * inverse_scale, -zero, kMaxNibble - zero)) + zero;
}

float sum_of(const float (&lanes)[kLanes]) {
  float sum = 0;
  for (const float lane : lanes) sum += lane;
  return sum;
}

float squared_error(std::span<const float> weights, float scale, float zero) {
  const float inverse_scale = 1 / scale;
  float lanes[kLanes] = {};
  for (size_t begin = 0; begin < weights.size(); begin += kLanes) {
    const float* block = weights.data() + begin;
    for (int lane = 0; lane < kLanes; lane++) {
      const float difference = (nibble_of(block[lane], inverse_scale, zero) - zero) * scale - block[lane];
      lanes[lane] += difference * difference;
    }
  }
  return sum_of(lanes);
}

// The scale that fits the nibbles of this scale best.
float fitted_scale(std::span<const float> weights, float scale, float zero) {
  const float inverse_scale = 1 / scale;
  float products[kLanes] = {}, squares[kLanes] = {};
  for (size_t begin = 0; begin < weights.size(); begin += kLanes) {
    const float* block = weights.data() + begin;
    for (int lane = 0; lane < kLanes; lane++) {
      const float steps = nibble_of(block[lane], inverse_scale, zero) - zero;
      products[lane] += steps * block[lane];
      squares[lane] += steps * steps;
    }
  }
  const float square_sum = sum_of(squares);
  return square_sum > 0 ? sum_of(products) / square_sum : scale;
}

// A scale as fp16 holds it; never 0, so that it has an inverse.
float as_half(float scale) {
  return static_cast<float>(fp16(std::clamp(scale, kMinHalf, kMaxHalf)));
}

}  // namespace

AwqGroup quantize_awq_group(std::span<const float> weights, uint8_t* nibbles) {
  const auto [min, max] = std::ranges::minmax(weights);
  const float low = std::min(min, 0.f), high = std::max(max, 0.f);  // zero is always one of the values
  const float widest = std::max((high - low) / kMaxNibble, kMinHalf);
  const float zero = std::clamp(round_nearest(-low / widest), 0.f, kMaxNibble);

  float searched = widest, least_error = std::numeric_limits<float>::infinity();
  for (int step = 0; step < kNumRanges; step++) {
    const float scale = widest * (1 - kRangeStep * static_cast<float>(step));
    const float error = squared_error(weights, scale, zero);
    if (error < least_error) least_error = error, searched = scale;
  }
  // The scale that was found and the one that fits its nibbles best; fp16 may favour either.
  float best = as_half(searched), best_error = squared_error(weights, best, zero);
  const float fitted = as_half(fitted_scale(weights, searched, zero)),
              fitted_error = squared_error(weights, fitted, zero);
  if (fitted_error < best_error) best = fitted, best_error = fitted_error;

  const float inverse_scale = 1 / best;
  for (size_t idx = 0; idx < weights.size(); idx++)
    nibbles[idx] = static_cast<uint8_t>(nibble_of(weights[idx], inverse_scale, zero));
  return {.scale = fp16(best), .zero = static_cast<uint8_t>(zero), .squared_error = best_error};
}

uint8_t encode_e4m3(float value) {
  const auto word = std::bit_cast<uint32_t>(value);
  const auto sign = static_cast<uint8_t>((word >> 24) & 0x80);
  const uint32_t magnitude = word & 0x7fffffff;
  // A subnormal counts steps of 2^-9; eight of them are the bits of the smallest normal number.
  if (std::bit_cast<float>(magnitude) < 0x1p-6f)
    return sign | static_cast<uint8_t>(round_nearest(std::bit_cast<float>(magnitude) * 512));
  // Drop 20 of 23 bits of mantissa, ties to even (a carry moves to the exponent), and change the exponent's bias from
  // 127 to 7.
  const uint32_t rounded = (magnitude + 0x7ffff + ((magnitude >> 20) & 1)) >> 20;
  return sign | static_cast<uint8_t>(rounded - ((127 - 7) << 3));
}

float fp8_block_scale(float max_magnitude) {
  // A block of nearly nothing becomes zeros.
  return max_magnitude < 0x1p-100f ? 1.f : max_magnitude / kMaxE4m3;
}

namespace {

constexpr int64_t kOutputsPerWord = 8;
constexpr int kAwqShift[kOutputsPerWord] = {0, 16, 4, 20, 8, 24, 12, 28};  // nibble order 0,2,4,6,1,3,5,7
// Outputs that a thread takes at once: rows of the AWQ tensors are then written in pieces of a cache line.
constexpr int64_t kAwqChunk = 128;

// Errors of one chunk of outputs. Chunks are added in order, whatever thread had them.
struct ChunkSums {
  double squared_error = 0, squared_norm = 0;
  bool finite = true;

  void add_row(const float* values, int64_t count) {
    double norm = 0;
    for (int64_t idx = 0; idx < count; idx++) norm += static_cast<double>(values[idx]) * values[idx];
    squared_norm += norm;
    finite = finite && std::isfinite(norm);  // squares of finite floats stay finite in double
  }
};

template <class T>
T* as(std::vector<std::byte>& bytes) {
  return reinterpret_cast<T*>(bytes.data());
}

// Rounds outputs [begin, end) of an AWQ weight.
class AwqChunk {
 public:
  AwqChunk(const RowReader& reader, const WeightSource& source, int group_size, int64_t begin, int64_t end)
      : reader_(reader),
        in_(source.in_features),
        out_(source.out_features),
        group_size_(group_size),
        begin_(begin),
        end_(end) {}

  ChunkSums run(QuantizedWeight& result) {
    const int64_t num_groups = in_ / group_size_, num_outputs = end_ - begin_;
    std::vector<float> row(static_cast<size_t>(in_));
    std::vector<uint8_t> nibbles(static_cast<size_t>(num_outputs * in_)),
        zeros(static_cast<size_t>(num_outputs * num_groups));
    ChunkSums sums;
    for (int64_t output = 0; output < num_outputs; output++) {
      reader_.read(begin_ + output, row.data());
      sums.add_row(row.data(), in_);
      if (!sums.finite) return sums;
      for (int64_t group = 0; group < num_groups; group++) {
        const std::span<const float> weights(row.data() + group * group_size_, static_cast<size_t>(group_size_));
        const AwqGroup rounded = quantize_awq_group(weights, nibbles.data() + output * in_ + group * group_size_);
        sums.squared_error += rounded.squared_error;
        zeros[output * num_groups + group] = rounded.zero;
        as<fp16>(result.tensors[2])[group * out_ + begin_ + output] = rounded.scale;
      }
    }
    pack(nibbles, in_, as<uint32_t>(result.tensors[0]));
    pack(zeros, num_groups, as<uint32_t>(result.tensors[1]));
    return sums;
  }

 private:
  // values [outputs of the chunk][num_rows] -> words [num_rows][out / 8].
  void pack(const std::vector<uint8_t>& values, int64_t num_rows, uint32_t* words) const {
    const int64_t row_words = out_ / kOutputsPerWord, first_word = begin_ / kOutputsPerWord,
                  last_word = end_ / kOutputsPerWord;
    for (int64_t row = 0; row < num_rows; row++) {
      for (int64_t word_idx = first_word; word_idx < last_word; word_idx++) {
        uint32_t word = 0;
        for (int64_t output = 0; output < kOutputsPerWord; output++)
          word |= uint32_t{values[(word_idx * kOutputsPerWord + output - begin_) * num_rows + row]}
                  << kAwqShift[output];
        words[row * row_words + word_idx] = word;
      }
    }
  }

  const RowReader& reader_;
  int64_t in_, out_, group_size_, begin_, end_;
};

std::array<float, 256> e4m3_values() {
  std::array<float, 256> values;
  for (int bits = 0; bits < 256; bits++)
    values[bits] = static_cast<float>(fp8e4m3::from_bits(static_cast<uint8_t>(bits)));
  return values;
}

// Rounds one row of fp8 blocks: outputs [begin, end).
ChunkSums quantize_fp8_rows(const RowReader& reader, int64_t in, int64_t begin, int64_t end, QuantizedWeight& result) {
  const int64_t num_blocks = ceil_div(in, kFp8Block), num_rows = end - begin;
  std::vector<float> rows(static_cast<size_t>(num_rows * in));
  ChunkSums sums;
  for (int64_t row = 0; row < num_rows; row++) {
    reader.read(begin + row, rows.data() + row * in);
    sums.add_row(rows.data() + row * in, in);
  }
  if (!sums.finite) return sums;
  const std::array<float, 256> values = e4m3_values();
  for (int64_t block = 0; block < num_blocks; block++) {
    const int64_t first = block * kFp8Block, last = std::min(in, first + kFp8Block);
    float max_magnitude = 0;
    for (int64_t row = 0; row < num_rows; row++)
      for (int64_t idx = first; idx < last; idx++)
        max_magnitude = std::max(max_magnitude, std::fabs(rows[row * in + idx]));
    const float scale = fp8_block_scale(max_magnitude);
    as<float>(result.tensors[1])[begin / kFp8Block * num_blocks + block] = scale;
    for (int64_t row = 0; row < num_rows; row++) {
      for (int64_t idx = first; idx < last; idx++) {
        const float weight = rows[row * in + idx];
        const uint8_t bits = encode_e4m3(weight / scale);
        as<uint8_t>(result.tensors[0])[(begin + row) * in + idx] = bits;
        const double difference = static_cast<double>(values[bits]) * scale - weight;
        sums.squared_error += difference * difference;
      }
    }
  }
  return sums;
}

}  // namespace

QuantizedWeight quantize_weight(const WeightSource& source, const QuantTarget& target, ThreadPool& threads) {
  const int64_t out = source.out_features, in = source.in_features;
  QuantizedWeight result;
  for (const TensorSpec& spec : quantized_specs({.rows = out, .cols = in}, target))
    result.tensors.emplace_back(spec.num_bytes());

  const RowReader reader(source);
  const int64_t chunk = target.format == WeightFormat::kAwq ? kAwqChunk : kFp8Block;
  std::vector<ChunkSums> sums(static_cast<size_t>(ceil_div(out, chunk)));
  threads.parallel_for(static_cast<int64_t>(sums.size()), 1, [&](int64_t first, int64_t last, int) {
    for (int64_t idx = first; idx < last; idx++) {
      const int64_t begin = idx * chunk, end = std::min(out, begin + chunk);
      sums[idx] = target.format == WeightFormat::kAwq
                      ? AwqChunk(reader, source, target.group_size, begin, end).run(result)
                      : quantize_fp8_rows(reader, in, begin, end, result);
    }
  });
  for (const ChunkSums& part : sums) {
    result.squared_error += part.squared_error;
    result.squared_norm += part.squared_norm;
    result.finite = result.finite && part.finite;
  }
  return result;
}

}  // namespace cachalot
