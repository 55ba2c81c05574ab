#include "weights/synth.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "base/file.h"
#include "base/math.h"
#include "tensor/dtype.h"

namespace cachalot {
namespace {

// Sebastiano Vigna's splitmix64: a counter, well mixed. The standard's distributions may differ between libraries; this
// does not.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t bits() {
    uint64_t word = state_ += 0x9e3779b97f4a7c15;
    word = (word ^ (word >> 30)) * 0xbf58476d1ce4e5b9;
    word = (word ^ (word >> 27)) * 0x94d049bb133111eb;
    return word ^ (word >> 31);
  }
  double symmetric() { return (static_cast<double>(bits() >> 11) + 0.5) * 0x1p-52 - 1; }  // (-1, 1)
  // Of either sign, magnitude 0.5 to 1.5, RMS 1.
  double signed_scale() {
    constexpr double kRms = 1.0408329997330663;  // sqrt(1 + 1/12)
    const double magnitude = (1 + symmetric() / 2) / kRms;
    return bits() & 1 ? magnitude : -magnitude;
  }

 private:
  uint64_t state_;
};

template <class T, class Draw>
std::vector<std::byte> filled(Draw draw) {
  std::vector<std::byte> bytes(RandomPatterns::kNumElements * sizeof(T));
  for (size_t idx = 0; idx < RandomPatterns::kNumElements; idx++) {
    const T element = draw();
    std::memcpy(bytes.data() + idx * sizeof(T), &element, sizeof(T));
  }
  return bytes;
}

std::vector<std::byte> make_pattern(PatternKind kind, double scale, Random random) {
  switch (kind) {
    case PatternKind::kUniform:
      return filled<bf16>([&] { return bf16(static_cast<float>(random.symmetric() * scale * std::sqrt(3.0))); });
    case PatternKind::kNorm:
      return filled<bf16>([&] { return bf16(static_cast<float>(1 + random.symmetric() * scale)); });
    // Sign, exponent field 4..7, any mantissa: no NaN and no subnormal.
    case PatternKind::kFp8:
      return filled<uint8_t>([&] { return static_cast<uint8_t>((random.bits() & 0x9f) | 0x20); });
    case PatternKind::kNibbles:
      return filled<uint32_t>([&] { return static_cast<uint32_t>(random.bits() >> 32); });
    case PatternKind::kCodes:
      return filled<uint8_t>([&] { return static_cast<uint8_t>(random.bits() >> 56); });
    case PatternKind::kZeroPoints:
      return filled<uint32_t>([&] { return 0x77777777u + (static_cast<uint32_t>(random.bits() >> 32) & 0x11111111u); });
    case PatternKind::kHalfScales:
      return filled<fp16>([&] { return fp16(static_cast<float>(random.signed_scale() * scale)); });
    case PatternKind::kFloatScales:
      return filled<float>([&] { return static_cast<float>(random.signed_scale() * scale); });
    case PatternKind::kBf16Scales:
      return filled<bf16>([&] { return bf16(static_cast<float>(random.signed_scale() * scale)); });
    case PatternKind::kPowers: {
      const int lower = std::ilogb(scale);
      const double above = std::ldexp(scale, -lower);  // 1 to 2
      const double share_of_upper = (above * above - 1) / 3;
      return filled<uint8_t>([&] {
        const bool is_upper = (random.symmetric() + 1) / 2 < share_of_upper;
        return static_cast<uint8_t>(127 + lower + is_upper);
      });
    }
  }
  check_failed(__FILE__, __LINE__, "kind", "unknown value");
}

}  // namespace

std::span<const std::byte> RandomPatterns::get(PatternKind kind, double scale) {
  std::vector<std::byte>& pattern = patterns_[{kind, scale}];
  if (pattern.empty()) {
    const uint64_t key[2] = {static_cast<uint64_t>(kind), std::bit_cast<uint64_t>(scale)};
    pattern = make_pattern(kind, scale, Random(XXH3_64bits_withSeed(key, sizeof key, seed_)));
  }
  return pattern;
}

size_t RandomPatterns::start(std::string_view tensor_name) const {
  return XXH3_64bits_withSeed(tensor_name.data(), tensor_name.size(), seed_) % kNumElements;
}

namespace {

constexpr double kNormSpread = 0.1, kBiasDeviation = 0.001;

struct RandomTensor {
  TensorSpec spec;
  PatternKind kind = PatternKind::kUniform;
  double scale = 1;
  std::vector<int64_t> numbers = {};  // if not empty, the tensor's, in the place of random ones
  std::vector<float> values = {};     // the same
};

// Weights have the standard deviation 1/sqrt(inputs), so that outputs are as large as inputs. Scales of either sign and
// zero points around 7.5 keep the mean at zero: a common part of all rows would send every token to the same experts.
std::vector<RandomTensor> quantized_tensors(const ModelTensor& tensor, const QuantTarget& target) {
  const double deviation = 1 / std::sqrt(static_cast<double>(tensor.cols));
  const std::vector<TensorSpec> specs = quantized_specs(tensor, target);
  if (target.format == WeightFormat::kFp8Block)
    return {{specs[0], PatternKind::kFp8, 1}, {specs[1], PatternKind::kFloatScales, deviation / kFp8Rms}};
  if (target.format == WeightFormat::kPackedInt)
    return {{specs[0], PatternKind::kNibbles, 1},
            {specs[1], PatternKind::kBf16Scales, deviation / kNibbleRms},
            {.spec = specs[2], .numbers = {tensor.rows, tensor.cols}}};
  if (target.format == WeightFormat::kMxfp4)
    return {{specs[0], PatternKind::kCodes, 1}, {specs[1], PatternKind::kPowers, deviation / kE2m1Rms}};
  return {{specs[0], PatternKind::kNibbles, 1},
          {specs[1], PatternKind::kZeroPoints, 1},
          {specs[2], PatternKind::kHalfScales, deviation / kNibbleRms}};
}

RandomTensor plain_tensor(const ModelTensor& tensor) {
  const TensorSpec spec = plain_spec(tensor, DType::kBF16);
  if (tensor.role == TensorRole::kNorm) return {spec, PatternKind::kNorm, kNormSpread};
  if (tensor.role == TensorRole::kBias) return {spec, PatternKind::kUniform, kBiasDeviation};
  if (tensor.role == TensorRole::kEmbedding) return {spec, PatternKind::kUniform, 1};
  return {spec, PatternKind::kUniform, 1 / std::sqrt(static_cast<double>(tensor.cols))};
}

// A bias of the choice of experts by which they are chosen unlike: the busiest by `skew` times the mean, the others by
// less and less, in an order of the layer's own. Found by choosing for random rows, and mending what is off.
std::vector<float> skewed_bias(const ModelConfig& config, double skew, Random random) {
  constexpr int kRows = 1024, kRounds = 60;
  constexpr double kSteepness = 6, kE = 2.718281828459045;
  const auto falling = [](double x) { return portable::pow(kE, x); };
  const auto num_experts = static_cast<size_t>(config.num_experts);
  const size_t group_size = num_experts / static_cast<size_t>(std::max(config.num_groups, 1));
  std::vector<std::pair<uint64_t, size_t>> order;
  for (size_t expert = 0; expert < num_experts; expert++) order.emplace_back(random.bits(), expert);
  std::ranges::sort(order);
  // 1 + x * exp(-kSteepness * place) over its mean is `skew` at the first place.
  const double mean = (1 - falling(-kSteepness)) / kSteepness, x = (skew - 1) / std::max(1 - skew * mean, 0.01);
  std::vector<double> wanted(num_experts), bias(num_experts);
  for (size_t place = 0; place < num_experts; place++)
    wanted[order[place].second] =
        1 + x * falling(-kSteepness * static_cast<double>(place) / static_cast<double>(num_experts));
  const double sum = std::accumulate(wanted.begin(), wanted.end(), 0.0);
  std::vector<float> scores(kRows * num_experts);
  for (float& score : scores) {
    double normal = 0;  // nearly, of deviation 1
    for (int draw = 0; draw < 3; draw++) normal += random.symmetric();
    score = static_cast<float>(1 / (1 + falling(-normal)));
  }
  for (int round = 0; round < kRounds; round++) {
    std::vector<double> chosen(num_experts, 0.5);
    for (int row = 0; row < kRows; row++) {
      std::vector<std::pair<double, size_t>> by_score, groups;
      for (size_t expert = 0; expert < num_experts; expert++)
        by_score.emplace_back(scores[static_cast<size_t>(row) * num_experts + expert] + bias[expert], expert);
      for (size_t begin = 0; begin < num_experts; begin += group_size) {
        double first = -1e9, second = -1e9;
        for (size_t expert = begin; expert < begin + group_size; expert++) {
          second = std::max(second, std::min(first, by_score[expert].first));
          first = std::max(first, by_score[expert].first);
        }
        groups.emplace_back(group_size > 1 ? first + second : first, begin / group_size);
      }
      std::ranges::sort(groups, std::greater<>());
      std::vector<bool> is_open(groups.size());
      for (size_t idx = 0; idx < std::min(groups.size(), static_cast<size_t>(std::max(config.topk_groups, 1))); idx++)
        is_open[groups[idx].second] = true;
      std::erase_if(by_score, [&](const auto& scored) { return !is_open[scored.second / group_size]; });
      const auto top = by_score.begin() + config.num_experts_per_token;
      std::ranges::partial_sort(by_score, top, std::greater<>());
      for (auto scored = by_score.begin(); scored != top; ++scored) chosen[scored->second]++;
    }
    const double all = std::accumulate(chosen.begin(), chosen.end(), 0.0), step = round < kRounds / 2 ? 0.08 : 0.03;
    for (size_t expert = 0; expert < num_experts; expert++)
      bias[expert] += step * portable::log(wanted[expert] / sum / (chosen[expert] / all));
  }
  return {bias.begin(), bias.end()};
}

Status write_random(CheckpointWriter& writer, RandomPatterns& patterns, const RandomTensor& tensor) {
  if (!tensor.values.empty()) return writer.write(tensor.spec.name, std::as_bytes(std::span(tensor.values)));
  if (!tensor.numbers.empty()) return writer.write(tensor.spec.name, std::as_bytes(std::span(tensor.numbers)));
  const std::span<const std::byte> pattern = patterns.get(tensor.kind, tensor.scale);
  size_t position = patterns.start(tensor.spec.name) * (pattern.size() / RandomPatterns::kNumElements);
  for (uint64_t remaining = tensor.spec.num_bytes(); remaining > 0;) {
    const size_t size = std::min<uint64_t>(remaining, pattern.size() - position);
    RETURN_IF_ERROR(writer.write(tensor.spec.name, pattern.subspan(position, size)));
    remaining -= size;
    position = 0;
  }
  return {};
}

}  // namespace

Result<SynthSummary> synthesize(const std::string& config_json, const std::string& config_path,
                                const std::string& folder, const SynthOptions& options) {
  RETURN_IF_ERROR(check_target(options.target));
  RETURN_IF_ERROR(check_output_folder(folder));
  // What the given file says of quantization does not matter: it may be a format that is not read here.
  ASSIGN_OR_RETURN(const std::string plain_json, config_for_target(config_json, config_path, {}, {}));
  ASSIGN_OR_RETURN(const ModelConfig config, parse_model_config(plain_json, config_path));

  if (options.routing_skew > 1 && config.topk_method != TopkMethod::kNoauxTc)
    return make_parameter_error("--routing-skew", "--routing-skew: the routing of {} has no bias to skew it by",
                                config_path);
  std::vector<RandomTensor> tensors;
  std::vector<std::string> kept;
  for (ModelTensor& tensor : model_tensors(config, config.num_nextn_predict_layers)) {
    tensor.name.insert(0, config.tensor_prefix);
    const bool wanted = wants_quantization(tensor, options.target);
    if (options.routing_skew > 1 && tensor.name.ends_with("e_score_correction_bias")) {
      const uint64_t seed = XXH3_64bits_withSeed(tensor.name.data(), tensor.name.size(), options.seed);
      tensors.push_back(
          {.spec = plain_spec(tensor, DType::kF32), .values = skewed_bias(config, options.routing_skew, Random(seed))});
      continue;
    }
    if (wanted && fits_quantization(tensor, options.target)) {
      std::ranges::move(quantized_tensors(tensor, options.target), std::back_inserter(tensors));
    } else {
      tensors.push_back(plain_tensor(tensor));
      if (wanted) kept.push_back(tensor.name);
    }
  }
  std::vector<TensorSpec> specs;
  for (const RandomTensor& tensor : tensors) specs.push_back(tensor.spec);

  ASSIGN_OR_RETURN(CheckpointWriter writer, CheckpointWriter::create(folder, specs, options.shard_bytes));
  RETURN_IF_ERROR(check_disk_space(folder, writer.num_bytes()));
  RandomPatterns patterns(options.seed);
  uint64_t num_done = 0;
  for (const RandomTensor& tensor : tensors) {
    RETURN_IF_ERROR(write_random(writer, patterns, tensor));
    num_done += tensor.spec.num_bytes();
    if (options.on_progress) options.on_progress(num_done, writer.num_bytes());
  }
  RETURN_IF_ERROR(writer.finish());
  ASSIGN_OR_RETURN(const std::string config_text, config_for_target(config_json, config_path, options.target, kept));
  RETURN_IF_ERROR(write_file(folder + "/config.json", config_text));
  return SynthSummary{writer.num_bytes(), writer.num_shards(), static_cast<int64_t>(kept.size())};
}

namespace {

constexpr const char* kLite = R"({
  "architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "torch_dtype": "bfloat16",
  "vocab_size": 32768, "bos_token_id": 0, "eos_token_id": 1, "tie_word_embeddings": false,
  "num_hidden_layers": 27, "hidden_size": 2048, "hidden_act": "silu", "rms_norm_eps": 1e-05,
  "num_attention_heads": 16, "num_key_value_heads": 16, "q_lora_rank": null, "kv_lora_rank": 512,
  "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
  "intermediate_size": 11264, "moe_intermediate_size": 1408, "first_k_dense_replace": 1, "moe_layer_freq": 1,
  "n_routed_experts": 64, "n_shared_experts": 2, "num_experts_per_tok": 6, "n_group": 1, "topk_group": 1,
  "scoring_func": "sigmoid", "topk_method": "noaux_tc", "norm_topk_prob": true, "routed_scaling_factor": 2.446,
  "max_position_embeddings": 8192, "rope_theta": 50000.0
})";

constexpr const char* kR1Slice = R"({
  "architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "torch_dtype": "bfloat16",
  "vocab_size": 4096, "bos_token_id": 0, "eos_token_id": 1, "tie_word_embeddings": false,
  "num_hidden_layers": 2, "hidden_size": 7168, "hidden_act": "silu", "rms_norm_eps": 1e-06,
  "num_attention_heads": 128, "num_key_value_heads": 128, "q_lora_rank": 1536, "kv_lora_rank": 512,
  "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
  "intermediate_size": 18432, "moe_intermediate_size": 2048, "first_k_dense_replace": 1, "moe_layer_freq": 1,
  "n_routed_experts": 256, "n_shared_experts": 1, "num_experts_per_tok": 8, "n_group": 8, "topk_group": 4,
  "scoring_func": "sigmoid", "topk_method": "noaux_tc", "norm_topk_prob": true, "routed_scaling_factor": 2.5,
  "max_position_embeddings": 163840, "rope_theta": 10000,
  "rope_scaling": {"type": "yarn", "factor": 40, "original_max_position_embeddings": 4096, "beta_fast": 32,
                   "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 1.0}
})";

constexpr const char* kK2Slice = R"({
  "architectures": ["DeepseekV3ForCausalLM"], "model_type": "kimi_k2", "torch_dtype": "bfloat16",
  "vocab_size": 4096, "bos_token_id": 0, "eos_token_id": 1, "tie_word_embeddings": false,
  "num_hidden_layers": 2, "hidden_size": 7168, "hidden_act": "silu", "rms_norm_eps": 1e-06,
  "num_attention_heads": 64, "num_key_value_heads": 64, "q_lora_rank": 1536, "kv_lora_rank": 512,
  "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
  "intermediate_size": 18432, "moe_intermediate_size": 2048, "first_k_dense_replace": 1, "moe_layer_freq": 1,
  "n_routed_experts": 384, "n_shared_experts": 1, "num_experts_per_tok": 8, "n_group": 1, "topk_group": 1,
  "scoring_func": "sigmoid", "topk_method": "noaux_tc", "norm_topk_prob": true, "routed_scaling_factor": 2.827,
  "max_position_embeddings": 131072, "rope_theta": 50000,
  "rope_scaling": {"type": "yarn", "factor": 32, "original_max_position_embeddings": 4096, "beta_fast": 1,
                   "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 1.0}
})";

constexpr const char* kGlm47Flash = R"({
  "architectures": ["Glm4MoeLiteForCausalLM"], "model_type": "glm4_moe_lite", "dtype": "bfloat16",
  "vocab_size": 154880, "eos_token_id": [154820, 154827, 154829], "tie_word_embeddings": false,
  "num_hidden_layers": 47, "hidden_size": 2048, "hidden_act": "silu", "rms_norm_eps": 1e-05,
  "num_attention_heads": 20, "num_key_value_heads": 20, "q_lora_rank": 768, "kv_lora_rank": 512,
  "qk_nope_head_dim": 192, "qk_rope_head_dim": 64, "v_head_dim": 256,
  "intermediate_size": 10240, "moe_intermediate_size": 1536, "first_k_dense_replace": 1,
  "n_routed_experts": 64, "n_shared_experts": 1, "num_experts_per_tok": 4, "n_group": 1, "topk_group": 1,
  "topk_method": "noaux_tc", "norm_topk_prob": true, "routed_scaling_factor": 1.8,
  "max_position_embeddings": 202752, "rope_scaling": null, "rope_theta": 1000000, "partial_rotary_factor": 1.0
})";

constexpr const char* kGlm52Slice = R"({
  "architectures": ["GlmMoeDsaForCausalLM"], "model_type": "glm_moe_dsa", "dtype": "bfloat16",
  "vocab_size": 4096, "eos_token_id": 1, "tie_word_embeddings": false,
  "num_hidden_layers": 2, "hidden_size": 6144, "hidden_act": "silu", "rms_norm_eps": 1e-05,
  "num_attention_heads": 64, "num_key_value_heads": 64, "q_lora_rank": 2048, "kv_lora_rank": 512,
  "qk_nope_head_dim": 192, "qk_rope_head_dim": 64, "v_head_dim": 256,
  "index_n_heads": 32, "index_head_dim": 128, "index_topk": 2048, "indexer_rope_interleave": true,
  "index_topk_freq": 2, "index_skip_topk_offset": 1,
  "intermediate_size": 12288, "moe_intermediate_size": 2048, "first_k_dense_replace": 1,
  "n_routed_experts": 256, "n_shared_experts": 1, "num_experts_per_tok": 8, "n_group": 1, "topk_group": 1,
  "scoring_func": "sigmoid", "topk_method": "noaux_tc", "norm_topk_prob": true, "routed_scaling_factor": 2.5,
  "max_position_embeddings": 1048576, "rope_parameters": {"rope_type": "default", "rope_theta": 8000000}
})";

struct BenchmarkShape {
  const char* name;
  const char* config;
};

// R1's slice with DeepSeek V3.2's indexer.
std::string v32_slice() {
  std::string text = kR1Slice;
  text.replace(text.find("DeepseekV3ForCausalLM"), 21, "DeepseekV32ForCausalLM");
  text.replace(text.find("deepseek_v3"), 11, "deepseek_v32");
  return text;
}

std::span<const BenchmarkShape> shapes() {
  static const std::string v32 = v32_slice();
  static const BenchmarkShape kShapes[] = {
      {"lite", kLite},       {"r1slice", kR1Slice},       {"v32slice", v32.c_str()},
      {"k2slice", kK2Slice}, {"glm52slice", kGlm52Slice}, {"glm47flash", kGlm47Flash}};
  return kShapes;
}

}  // namespace

const char* benchmark_config(std::string_view shape) {
  const auto found = std::ranges::find(shapes(), shape, &BenchmarkShape::name);
  return found == shapes().end() ? nullptr : found->config;
}

std::vector<std::string> benchmark_shapes() {
  std::vector<std::string> names;
  for (const BenchmarkShape& shape : shapes()) names.emplace_back(shape.name);
  return names;
}

}  // namespace cachalot
