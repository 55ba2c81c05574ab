#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "weights/checkpoint_writer.h"
#include "weights/weight_catalog.h"

namespace cachalot {

// What random bytes stand for.
enum class PatternKind {
  kUniform,      // bf16, uniform around 0, standard deviation = scale
  kNorm,         // bf16, 1 +- scale
  kFp8,          // e4m3 of either sign, magnitudes 1/8 to 2, RMS kFp8Rms
  kNibbles,      // eight int4 a word
  kZeroPoints,   // eight zero points a word, 7 or 8 each: 7.5 is the mean of a nibble, so weights have no bias
  kCodes,        // two E2M1 a byte
  kHalfScales,   // fp16 of either sign, RMS = scale
  kBf16Scales,   // bf16 of either sign, RMS = scale
  kFloatScales,  // float of either sign, RMS = scale
  kPowers,       // bytes 127 + exponent of two neighbouring powers of two, RMS = scale
};
inline constexpr double kFp8Rms = 0.8446;     // of kFp8
inline constexpr double kNibbleRms = 4.6368;  // of a nibble minus its zero point
inline constexpr double kE2m1Rms = 2.9262;    // of kCodes

// Blocks of random elements, from which tensors of any size are written at the speed of the disk: a tensor begins at a
// place of its own and goes round. Their length is prime, so that no row of a matrix meets the same elements as
// another.
class RandomPatterns {
 public:
  static constexpr size_t kNumElements = 1'048'573;

  explicit RandomPatterns(uint64_t seed) : seed_(seed) {}

  // Made on first use; stays valid.
  std::span<const std::byte> get(PatternKind kind, double scale);
  // Where a tensor of this name begins, in elements.
  size_t start(std::string_view tensor_name) const;

 private:
  uint64_t seed_;
  std::map<std::pair<PatternKind, double>, std::vector<std::byte>> patterns_;
};

struct SynthOptions {
  QuantTarget target;
  uint64_t seed = 0;
  uint64_t shard_bytes = kDefaultShardBytes;
  double routing_skew = 1;  // so many times the mean rows choose the busiest expert of each layer
  std::function<void(uint64_t num_done, uint64_t num_total)> on_progress = {};  // in bytes; may be empty
};

struct SynthSummary {
  uint64_t num_bytes = 0;
  int num_shards = 0;
  int64_t num_plain = 0;  // linears that the format does not fit: plain bf16 in the file
};

// Writes a random checkpoint of the shape that `config_json` (a config.json's text; `config_path` is named in errors)
// describes: config.json, safetensors and index, no tokenizer. For benchmarks and memory plans: activations keep their
// size through any number of layers, and tokens spread evenly over the experts, or as routing_skew says (the error: a
// routing without a bias). The same seed gives the same bytes.
Result<SynthSummary> synthesize(const std::string& config_json, const std::string& config_path,
                                const std::string& folder, const SynthOptions& options);

// config.json of the shapes that speed is compared on, or null: "lite" (a small mixture of experts of 2.3 B active
// parameters), "r1slice" and "k2slice" (DeepSeek-R1's and Kimi K2's widths, one dense layer and one with experts),
// "v32slice" (R1's with DeepSeek V3.2's indexer), "glm52slice" (GLM-5.2's widths, the second layer without an indexer)
// and "glm47flash" (GLM-4.7-Flash, all of it).
const char* benchmark_config(std::string_view shape);
std::vector<std::string> benchmark_shapes();

}  // namespace cachalot
