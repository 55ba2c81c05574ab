#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/error.h"
#include "weights/checkpoint_writer.h"
#include "weights/folding.h"
#include "weights/model_files.h"
#include "weights/weight_catalog.h"

namespace cachalot {

struct QuantizeOptions {
  QuantTarget target = {.format = WeightFormat::kAwq};
  // What to fold into which tensors; called once it is known that the model can be quantized. May be empty.
  std::function<Result<Foldings>(const ModelFiles& files)> calibrate = {};
  int num_threads = 1;
  uint64_t shard_bytes = kDefaultShardBytes;
  std::function<void(uint64_t num_done, uint64_t num_total)> on_progress = {};  // in bytes read; may be empty
};

struct QuantizeSummary {
  uint64_t num_bytes_read = 0, num_bytes_written = 0;
  int64_t num_quantized = 0;      // linears
  std::vector<std::string> kept;  // linears that the format does not fit, which stay as stored
  double relative_error = 0;      // root of sum (new - old)^2 / sum old^2 over the quantized weights, by importance
};

// Writes the model in `model_folder` (plain or fp8) to `folder` with its layers' linears, MTP layers included, rounded
// to the target's format; everything else stays as stored, but for what is folded into it, and the tokenizer's and
// other small files are copied. Needs the memory of the largest linear, whatever the model's size.
Result<QuantizeSummary> quantize_model(const std::string& model_folder, const std::string& folder,
                                       const QuantizeOptions& options);

}  // namespace cachalot
