#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/error.h"
#include "weights/checkpoint_writer.h"
#include "weights/weight_catalog.h"

namespace cachalot {

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
