#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "base/error.h"
#include "weights/checkpoint_writer.h"
#include "weights/quant_target.h"

namespace cachalot {

struct SynthOptions {
  QuantTarget target;
  uint64_t seed = 0;
  uint64_t shard_bytes = kDefaultShardBytes;
  std::function<void(uint64_t num_done, uint64_t num_total)> on_progress = {};  // in bytes; may be empty
};

struct SynthSummary {
  uint64_t num_bytes = 0;
  int num_shards = 0;
  int64_t num_plain = 0;  // linears that the format does not fit: plain bf16 in the file
};

// Writes a random checkpoint of the shape that `config_json` (a config.json's text; `config_path` is named in errors)
// describes: config.json, safetensors and index, no tokenizer. For benchmarks and memory plans: activations keep their
// size through any number of layers, and tokens spread evenly over the experts. The same seed gives the same bytes.
Result<SynthSummary> synthesize(const std::string& config_json, const std::string& config_path,
                                const std::string& folder, const SynthOptions& options);

// config.json of the shapes that speed is compared on, or null: "lite" (a small mixture of experts of 2.3 B active
// parameters) and "r1slice" (DeepSeek-R1's widths, one dense layer and one with experts).
const char* benchmark_config(std::string_view shape);

}  // namespace cachalot
