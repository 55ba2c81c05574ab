#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "device/thread_pool.h"
#include "kernels/matrix.h"
#include "tensor/dtype.h"
#include "weights/checkpoint_writer.h"
#include "weights/weight_catalog.h"

namespace cachalot {

// One AWQ group: weight = (nibble - zero) * scale.
struct AwqGroup {
  fp16 scale;
  uint8_t zero = 0;
  double squared_error = 0;
};

// Rounds a group (a multiple of 32 finite weights) to nibbles. The range of 15 steps is that of the weights or a
// narrower one: cutting off a few outliers makes all steps finer; the range with the least squared error wins, and its
// scale is fitted to the nibbles by least squares.
AwqGroup quantize_awq_group(std::span<const float> weights, uint8_t* nibbles);

// One group with the zero point 8 and a bf16 scale, as compressed-tensors' symmetric int4: else the same.
struct SymmetricGroup {
  bf16 scale;
  double squared_error = 0;
};
SymmetricGroup quantize_symmetric_group(std::span<const float> weights, uint8_t* nibbles);

// One group of MXFP4: weight = E2M1 code * 2^(scale - 127), each code the nearest, ties to even. The scale is of those
// around the largest weight the one with the least squared error.
struct Mxfp4Group {
  uint8_t scale = 0;
  double squared_error = 0;
};
Mxfp4Group quantize_mxfp4_group(std::span<const float> weights, uint8_t* codes);

// fp8 e4m3 as fp8e4m3(value) rounds, for finite values up to 448; fast.
uint8_t encode_e4m3(float value);
// The scale of an fp8 block with this largest magnitude.
float fp8_block_scale(float max_magnitude);

// A weight in its new format: the bytes of its tensors, in the order of quantized_specs().
struct QuantizedWeight {
  std::vector<std::vector<std::byte>> tensors;
  double squared_error = 0, squared_norm = 0;  // of the weights: sum (new - old)^2, sum old^2
  bool finite = true;                          // the weight held no NaN and no infinity; else the bytes mean nothing
};

// Quantizes a whole plain or fp8 weight that fits the target (fits_quantization), on all threads. The result does not
// depend on their number.
QuantizedWeight quantize_weight(const WeightSource& source, const QuantTarget& target, ThreadPool& threads);

struct QuantizeOptions {
  QuantTarget target = {.format = WeightFormat::kAwq};
  int num_threads = 1;
  uint64_t shard_bytes = kDefaultShardBytes;
  std::function<void(uint64_t num_done, uint64_t num_total)> on_progress = {};  // in bytes read; may be empty
};

struct QuantizeSummary {
  uint64_t num_bytes_read = 0, num_bytes_written = 0;
  int64_t num_quantized = 0;      // linears
  std::vector<std::string> kept;  // linears that the format does not fit, which stay as stored
  double relative_error = 0;      // root of sum (new - old)^2 / sum old^2 over the quantized weights
};

// Writes the model in `model_folder` (plain or fp8) to `folder` with its layers' linears, MTP layers included, rounded
// to the target's format; everything else stays as stored, and the tokenizer's and other small files are copied. Needs
// the memory of the largest layer, whatever the model's size.
Result<QuantizeSummary> quantize_model(const std::string& model_folder, const std::string& folder,
                                       const QuantizeOptions& options);

}  // namespace cachalot
