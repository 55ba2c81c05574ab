#include "weights/quantize.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <limits>

#include "base/file.h"
#include "base/math.h"
#include "weights/linear_source.h"
#include "weights/model_files.h"

namespace cachalot {
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

namespace {

// A bf16 scale; never 0, nor so small that the kernels take it for 0.
float as_bf16(float scale) {
  return static_cast<float>(bf16(std::max(scale, 0x1p-100f)));
}

struct RoundedGroup {
  float scale;
  double squared_error;
};

// Rounds a group whose range, at its widest, has steps of `widest`; `as_stored` rounds a scale as the format does.
template <class AsStored>
RoundedGroup round_group(std::span<const float> weights, float widest, float zero, AsStored as_stored,
                         uint8_t* nibbles) {
  float searched = widest, least_error = std::numeric_limits<float>::infinity();
  for (int step = 0; step < kNumRanges; step++) {
    const float scale = widest * (1 - kRangeStep * static_cast<float>(step));
    const float error = squared_error(weights, scale, zero);
    if (error < least_error) least_error = error, searched = scale;
  }
  // The scale that was found and the one that fits its nibbles best; the format's rounding may favour either.
  float best = as_stored(searched), best_error = squared_error(weights, best, zero);
  const float fitted = as_stored(fitted_scale(weights, searched, zero)),
              fitted_error = squared_error(weights, fitted, zero);
  if (fitted_error < best_error) best = fitted, best_error = fitted_error;

  const float inverse_scale = 1 / best;
  for (size_t idx = 0; idx < weights.size(); idx++)
    nibbles[idx] = static_cast<uint8_t>(nibble_of(weights[idx], inverse_scale, zero));
  return {best, best_error};
}

}  // namespace

AwqGroup quantize_awq_group(std::span<const float> weights, uint8_t* nibbles) {
  const auto [min, max] = std::ranges::minmax(weights);
  const float low = std::min(min, 0.f), high = std::max(max, 0.f);  // zero is always one of the values
  const float widest = std::max((high - low) / kMaxNibble, kMinHalf);
  const float zero = std::clamp(round_nearest(-low / widest), 0.f, kMaxNibble);
  const RoundedGroup rounded = round_group(weights, widest, zero, as_half, nibbles);
  return {.scale = fp16(rounded.scale), .zero = static_cast<uint8_t>(zero), .squared_error = rounded.squared_error};
}

SymmetricGroup quantize_symmetric_group(std::span<const float> weights, uint8_t* nibbles) {
  constexpr float kZero = 8;
  const auto [min, max] = std::ranges::minmax(weights);
  const float widest = std::max({-min / kZero, max / (kMaxNibble - kZero), 0x1p-100f});
  const RoundedGroup rounded = round_group(weights, widest, kZero, as_bf16, nibbles);
  return {.scale = bf16(rounded.scale), .squared_error = rounded.squared_error};
}

namespace {

// The nearest code of a magnitude in halves of a step, ties to the even code: beyond 2 steps are 1 wide, beyond 4, 2.
uint8_t e2m1_code(float value) {
  const float doubled = std::min(std::fabs(value) * 2, 12.f);
  float code = round_nearest(doubled);                                    // 0 .. 4
  if (doubled > 4) code = round_nearest(doubled / 2) + 2;                 // 4 .. 6
  if (doubled > 8) code = std::min(round_nearest(doubled / 4) + 4, 7.f);  // 6, 7
  return static_cast<uint8_t>(code) | (value < 0 && code > 0 ? 8 : 0);
}

double round_mxfp4(std::span<const float> weights, float scale, uint8_t* codes) {
  double squared_error = 0;
  for (size_t idx = 0; idx < weights.size(); idx++) {
    codes[idx] = e2m1_code(weights[idx] / scale);
    const double difference = 0.5 * kE2m1Doubled[codes[idx]] * scale - weights[idx];
    squared_error += difference * difference;
  }
  return squared_error;
}

}  // namespace

Mxfp4Group quantize_mxfp4_group(std::span<const float> weights, uint8_t* codes) {
  constexpr int kLargestScale = 252;  // 6 times it is finite
  float largest = 0;
  for (const float weight : weights) largest = std::max(largest, std::fabs(weight));
  if (largest < 0x1p-100f) {
    std::ranges::fill_n(codes, std::ssize(weights), uint8_t{0});
    return {.scale = 127};
  }
  // The largest weight is 4 to 8 steps of the first, so that only it may be cut off; of the second, 2 to 4.
  const int first = std::ilogb(largest) + 127 - 2, last = std::min(first + 1, kLargestScale);
  Mxfp4Group best;
  std::vector<uint8_t> tried(weights.size());
  for (int scale = std::max(first, 0); scale <= last; scale++) {
    const double error = round_mxfp4(weights, e8m0_value(static_cast<uint8_t>(scale)), tried.data());
    if (scale > std::max(first, 0) && error >= best.squared_error) continue;
    best = {.scale = static_cast<uint8_t>(scale), .squared_error = error};
    std::ranges::copy(tried, codes);
  }
  return best;
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
// Outputs that a thread takes at once: a row of fp8 blocks; and rows of the AWQ tensors are then written in pieces of a
// cache line.
constexpr int64_t kOutputsAtOnce = 128;
static_assert(kOutputsAtOnce == kFp8Block);

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
  AwqChunk(const WeightSource& source, int group_size, int64_t begin, int64_t end)
      : source_(source),
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
      read_values(source_, begin_ + output, 0, in_, row.data());
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

  const WeightSource& source_;
  int64_t in_, out_, group_size_, begin_, end_;
};

// Rounds outputs [begin, end) of a weight whose rows are outputs: compressed-tensors' int4 or MXFP4.
ChunkSums quantize_rows(const WeightSource& source, const QuantTarget& target, int64_t begin, int64_t end,
                        QuantizedWeight& result) {
  const int64_t in = source.in_features, group_size = target.group_size, num_groups = in / group_size;
  const int64_t row_bytes = std::ssize(result.tensors[0]) / source.out_features;
  std::vector<float> row(static_cast<size_t>(in));
  std::vector<uint8_t> nibbles(static_cast<size_t>(2 * row_bytes));  // what fills the last word up is zero
  ChunkSums sums;
  for (int64_t output = begin; output < end; output++) {
    read_values(source, output, 0, in, row.data());
    sums.add_row(row.data(), in);
    if (!sums.finite) return sums;
    for (int64_t group = 0; group < num_groups; group++) {
      const std::span<const float> weights(row.data() + group * group_size, static_cast<size_t>(group_size));
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
ChunkSums quantize_fp8_rows(const WeightSource& source, int64_t begin, int64_t end, QuantizedWeight& result) {
  const int64_t in = source.in_features, num_blocks = ceil_div(in, kFp8Block), num_rows = end - begin;
  std::vector<float> rows(static_cast<size_t>(num_rows * in));
  ChunkSums sums;
  for (int64_t row = 0; row < num_rows; row++) {
    read_values(source, begin + row, 0, in, rows.data() + row * in);
    sums.add_row(rows.data() + row * in, in);
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

  CHECK((source.format == SourceFormat::kPlain || source.format == SourceFormat::kFp8Block) &&
        source.out_count == out && source.in_count == in);
  const auto quantize = [&](int64_t begin, int64_t end) {
    if (target.format == WeightFormat::kAwq) return AwqChunk(source, target.group_size, begin, end).run(result);
    if (target.format == WeightFormat::kFp8Block) return quantize_fp8_rows(source, begin, end, result);
    return quantize_rows(source, target, begin, end, result);
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

namespace {

namespace fs = std::filesystem;

// One entry of the model: the tensors that hold it now, and those that will. Equal names: copied as they are.
struct Conversion {
  ModelTensor tensor = {};
  std::vector<const TensorRef*> from;
  std::vector<TensorSpec> to;
  bool is_quantized = false;

  uint64_t num_bytes_read() const {
    uint64_t bytes = 0;
    for (const TensorRef* part : from) bytes += part->data.size();
    return bytes;
  }
};

class ModelQuantizer {
 public:
  ModelQuantizer(const ModelFiles& files, const QuantizeOptions& options)
      : files_(files), options_(options), threads_({.num_threads = options.num_threads}) {}

  Status plan() {
    for (ModelTensor& tensor : model_tensors(files_.config(), files_.num_mtp_layers()))
      RETURN_IF_ERROR(plan_tensor(std::move(tensor)));
    for (const TensorRef& tensor : files_.checkpoint().set_aside()) add({.from = {&tensor}, .to = {tensor.spec}});
    if (summary_.num_quantized == 0)
      return make_error(ErrorCode::kInvalidArgument,
                        "{}: nothing to quantize: no linear is plain or fp8 and fits the format",
                        files_.checkpoint().folder());
    return {};
  }

  Status write(const std::string& folder) {
    std::vector<TensorSpec> specs;
    for (const Conversion& conversion : conversions_)
      specs.insert(specs.end(), conversion.to.begin(), conversion.to.end());
    ASSIGN_OR_RETURN(CheckpointWriter writer, CheckpointWriter::create(folder, specs, options_.shard_bytes));
    RETURN_IF_ERROR(check_disk_space(folder, writer.num_bytes()));
    summary_.num_bytes_written = writer.num_bytes();
    uint64_t num_done = 0;
    for (size_t idx = 0; idx < conversions_.size(); idx++) {
      if (idx + 1 < conversions_.size())  // the disk reads while this one is computed
        for (const TensorRef* part : conversions_[idx + 1].from) files_.checkpoint().prefetch(part->data);
      RETURN_IF_ERROR(convert(conversions_[idx], writer));
      for (const TensorRef* part : conversions_[idx].from) files_.checkpoint().drop_pages(part->data);
      num_done += conversions_[idx].num_bytes_read();
      if (options_.on_progress) options_.on_progress(num_done, summary_.num_bytes_read);
    }
    return writer.finish();
  }

  QuantizeSummary summary() const {
    QuantizeSummary summary = summary_;
    if (squared_norm_ > 0) summary.relative_error = std::sqrt(squared_error_ / squared_norm_);
    return summary;
  }

 private:
  Status plan_tensor(ModelTensor tensor) {
    Conversion conversion{.tensor = std::move(tensor)};
    const ModelTensor& entry = conversion.tensor;
    if (entry.is_linear()) {
      const LinearParts parts = find_linear(files_.checkpoint(), entry.name);
      if (parts.found() && !(parts.weight && parts.weight->spec.dtype != DType::kI8))
        return make_error(ErrorCode::kUnsupported,
                          "{}: {} is int4 or MXFP4 already; quantize from the bf16 or fp8 model",
                          files_.checkpoint().folder(), entry.name);
      conversion.from = parts.all();
      const bool has_format = options_.target.format == WeightFormat::kFp8Block && parts.scale;
      conversion.is_quantized = parts.found() && !has_format && wants_quantization(entry, options_.target);
    } else if (const TensorRef* part = files_.checkpoint().find(entry.name)) {
      conversion.from = {part};
    }
    if (conversion.from.empty()) return {};  // an MTP layer's copy of the embedding or head may be absent
    if (conversion.is_quantized && !fits_quantization(entry, options_.target)) {
      conversion.is_quantized = false;
      summary_.kept.push_back(files_.config().tensor_prefix + entry.name);
    }
    if (conversion.is_quantized) {
      conversion.to = quantized_specs(entry, options_.target);
      for (TensorSpec& spec : conversion.to) spec.name.insert(0, files_.config().tensor_prefix);
      summary_.num_quantized++;
    } else {
      for (const TensorRef* part : conversion.from) conversion.to.push_back(part->spec);
    }
    add(std::move(conversion));
    return {};
  }

  void add(Conversion conversion) {
    summary_.num_bytes_read += conversion.num_bytes_read();
    conversions_.push_back(std::move(conversion));
  }

  Status convert(const Conversion& conversion, CheckpointWriter& writer) {
    if (!conversion.is_quantized) {
      for (const TensorRef* part : conversion.from) RETURN_IF_ERROR(writer.write(part->spec.name, part->data));
      return {};
    }
    ASSIGN_OR_RETURN(const WeightSource source,
                     files_.linear(conversion.tensor.name, conversion.tensor.rows, conversion.tensor.cols));
    const QuantizedWeight weight = quantize_weight(source, options_.target, threads_);
    if (!weight.finite) return tensor_error(*conversion.from.front(), "holds a number that is not finite");
    squared_error_ += weight.squared_error;
    squared_norm_ += weight.squared_norm;
    for (size_t idx = 0; idx < conversion.to.size(); idx++)
      RETURN_IF_ERROR(writer.write(conversion.to[idx].name, weight.tensors[idx]));
    return {};
  }

  const ModelFiles& files_;
  const QuantizeOptions& options_;
  ThreadPool threads_;
  std::vector<Conversion> conversions_;
  QuantizeSummary summary_;
  double squared_error_ = 0, squared_norm_ = 0;
};

// Tokenizer, chat template, licence, and whatever else lies beside the weights.
Status copy_other_files(const std::string& from, const std::string& to) {
  constexpr std::string_view kWeights[] = {
      ".safetensors", ".safetensors.index.json", ".bin", ".bin.index.json", ".pt", ".pth", ".gguf"};
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(from, error)) {
    const std::string name = entry.path().filename();
    const bool is_weights =
        std::ranges::any_of(kWeights, [&](std::string_view ending) { return name.ends_with(ending); });
    if (!entry.is_regular_file() || is_weights || name == "config.json") continue;
    fs::copy_file(entry.path(), fs::path(to) / name, fs::copy_options::overwrite_existing, error);
    if (error) return make_error(ErrorCode::kIo, "{}/{}: cannot copy to {}: {}", from, name, to, error.message());
  }
  if (error) return make_error(ErrorCode::kIo, "{}: cannot list: {}", from, error.message());
  return {};
}

}  // namespace

Result<QuantizeSummary> quantize_model(const std::string& model_folder, const std::string& folder,
                                       const QuantizeOptions& options) {
  RETURN_IF_ERROR(check_target(options.target));
  RETURN_IF_ERROR(check_output_folder(folder));
  ASSIGN_OR_RETURN(const ModelFiles files, ModelFiles::open(model_folder));
  ModelQuantizer quantizer(files, options);
  RETURN_IF_ERROR(quantizer.plan());
  RETURN_IF_ERROR(quantizer.write(folder));
  RETURN_IF_ERROR(copy_other_files(model_folder, folder));

  // config.json comes last: a folder that has one is whole.
  const std::string config_path = model_folder + "/config.json";
  ASSIGN_OR_RETURN(const std::string config, read_file(config_path));
  const QuantizeSummary summary = quantizer.summary();
  ASSIGN_OR_RETURN(const std::string config_text, config_for_target(config, config_path, options.target, summary.kept));
  RETURN_IF_ERROR(write_file(folder + "/config.json", config_text));
  return summary;
}

}  // namespace cachalot
