#include "weights/quantized_weight.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <span>

#include "base/math.h"
#include "weights/group_rounding.h"

namespace cachalot {
namespace {

constexpr int64_t kOutputsPerWord = 8;
// Outputs that a thread takes at once: a row of fp8 blocks; and rows of the AWQ tensors are then written in pieces of a
// cache line.
constexpr int64_t kOutputsAtOnce = 128;
static_assert(kOutputsAtOnce == kFp8Block);

// Errors of one chunk of outputs. Chunks are added in order, whatever thread had them.
struct ChunkSums {
  double squared_error = 0, squared_norm = 0;
  bool finite = true;

  void add_row(std::span<const float> values, std::span<const float> importance) {
    double norm = 0;
    for (size_t idx = 0; idx < values.size(); idx++)
      norm += static_cast<double>(values[idx]) * values[idx] * importance[idx];
    squared_norm += norm;
    finite = finite && std::isfinite(norm);  // squares of finite floats stay finite in double
  }
};

template <class T>
T* as(std::vector<std::byte>& bytes) {
  return reinterpret_cast<T*>(bytes.data());
}

WeightGroup group_of(std::span<const float> row, std::span<const float> importance, int64_t group, int64_t size) {
  const auto begin = static_cast<size_t>(group * size), count = static_cast<size_t>(size);
  return {row.subspan(begin, count), importance.subspan(begin, count)};
}

// Rounds outputs [begin, end) of an AWQ weight.
class AwqChunk {
 public:
  AwqChunk(const FoldedWeight& weight, int group_size, int64_t begin, int64_t end)
      : weight_(weight),
        in_(weight.source().in_features),
        out_(weight.source().out_features),
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
      weight_.read_row(begin_ + output, row.data());
      sums.add_row(row, weight_.importance());
      if (!sums.finite) return sums;
      for (int64_t group = 0; group < num_groups; group++) {
        const AwqGroup rounded = quantize_awq_group(group_of(row, weight_.importance(), group, group_size_),
                                                    nibbles.data() + output * in_ + group * group_size_);
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

  const FoldedWeight& weight_;
  int64_t in_, out_, group_size_, begin_, end_;
};

// Rounds outputs [begin, end) of a weight whose rows are outputs: compressed-tensors' int4 or MXFP4.
ChunkSums quantize_rows(const FoldedWeight& weight, const QuantTarget& target, int64_t begin, int64_t end,
                        QuantizedWeight& result) {
  const int64_t in = weight.source().in_features, group_size = target.group_size, num_groups = in / group_size;
  const int64_t row_bytes = std::ssize(result.tensors[0]) / weight.source().out_features;
  std::vector<float> row(static_cast<size_t>(in));
  std::vector<uint8_t> nibbles(static_cast<size_t>(2 * row_bytes));  // what fills the last word up is zero
  ChunkSums sums;
  for (int64_t output = begin; output < end; output++) {
    weight.read_row(output, row.data());
    sums.add_row(row, weight.importance());
    if (!sums.finite) return sums;
    for (int64_t group = 0; group < num_groups; group++) {
      const WeightGroup weights = group_of(row, weight.importance(), group, group_size);
      uint8_t* const codes = nibbles.data() + group * group_size;
      const int64_t scale_idx = output * num_groups + group;
      if (target.format == WeightFormat::kMxfp4) {
        const Mxfp4Group rounded = quantize_mxfp4_group(weights, codes);
        as<uint8_t>(result.tensors[1])[scale_idx] = rounded.scale;
        sums.squared_error += rounded.squared_error;
      } else {
        const SymmetricGroup rounded = quantize_symmetric_group(weights, codes);
        as<bf16>(result.tensors[1])[scale_idx] = rounded.scale;
        sums.squared_error += rounded.squared_error;
      }
    }
    uint8_t* const bytes = as<uint8_t>(result.tensors[0]) + output * row_bytes;
    for (int64_t idx = 0; idx < row_bytes; idx++)
      bytes[idx] = static_cast<uint8_t>(nibbles[2 * idx] | nibbles[2 * idx + 1] << 4);
  }
  return sums;
}

// Rounds one row of fp8 blocks: outputs [begin, end).
ChunkSums quantize_fp8_rows(const FoldedWeight& weight, int64_t begin, int64_t end, QuantizedWeight& result) {
  const int64_t in = weight.source().in_features, num_blocks = ceil_div(in, kFp8Block), num_rows = end - begin;
  std::vector<float> rows(static_cast<size_t>(num_rows * in));
  ChunkSums sums;
  for (int64_t row = 0; row < num_rows; row++) {
    weight.read_row(begin + row, rows.data() + row * in);
    sums.add_row({rows.data() + row * in, static_cast<size_t>(in)}, weight.importance());
  }
  if (!sums.finite) return sums;
  const std::array<float, 256>& values = fp8_values();
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
        const float value = rows[row * in + idx];
        const uint8_t bits = encode_e4m3(value / scale);
        as<uint8_t>(result.tensors[0])[(begin + row) * in + idx] = bits;
        const double difference = static_cast<double>(values[bits]) * scale - value;
        sums.squared_error += difference * difference;
      }
    }
  }
  return sums;
}

}  // namespace

QuantizedWeight quantize_weight(const WeightSource& source, const Folding& folding, const QuantTarget& target,
                                ThreadPool& threads) {
  const int64_t out = source.out_features, in = source.in_features;
  QuantizedWeight result;
  for (const TensorSpec& spec : quantized_specs({.rows = out, .cols = in}, target))
    result.tensors.emplace_back(spec.num_bytes());

  CHECK((source.format == SourceFormat::kPlain || source.format == SourceFormat::kFp8Block) &&
        source.out_count == out && source.in_count == in);
  const FoldedWeight weight(source, folding);
  const auto quantize = [&](int64_t begin, int64_t end) {
    if (target.format == WeightFormat::kAwq) return AwqChunk(weight, target.group_size, begin, end).run(result);
    if (target.format == WeightFormat::kFp8Block) return quantize_fp8_rows(weight, begin, end, result);
    return quantize_rows(weight, target, begin, end, result);
  };
  if (target.format == WeightFormat::kPackedInt) {
    const int64_t shape[2] = {out, in};
    std::memcpy(result.tensors[2].data(), shape, sizeof shape);
  }
  std::vector<ChunkSums> sums(static_cast<size_t>(ceil_div(out, kOutputsAtOnce)));
  threads.parallel_for(static_cast<int64_t>(sums.size()), 1, [&](int64_t first, int64_t last, int) {
    for (int64_t idx = first; idx < last; idx++)
      sums[idx] = quantize(idx * kOutputsAtOnce, std::min(out, (idx + 1) * kOutputsAtOnce));
  });
  for (const ChunkSums& part : sums) {
    result.squared_error += part.squared_error;
    result.squared_norm += part.squared_norm;
    result.finite = result.finite && part.finite;
  }
  return result;
}

std::vector<std::byte> from_floats(std::span<const float> values, DType dtype) {
  std::vector<std::byte> bytes(values.size() * dtype_size(dtype));
  for (size_t idx = 0; idx < values.size(); idx++) {
    if (dtype == DType::kF32) as<float>(bytes)[idx] = values[idx];
    if (dtype == DType::kBF16) as<bf16>(bytes)[idx] = bf16(values[idx]);
    if (dtype == DType::kF16) as<fp16>(bytes)[idx] = fp16(values[idx]);
  }
  return bytes;
}

}  // namespace cachalot
