#include "config/model_families.h"

#include <fmt/ranges.h>

#include <string>
#include <vector>

#include "base/text.h"

namespace cachalot {
namespace {

const std::vector<Family>& families() {
  static const std::vector<Family> kFamilies = [] {
    const ModelConfig v2{.family = ModelFamily::kDeepseekV2,
                         .q_lora_rank = 1536,
                         .moe_intermediate_size = 1407,
                         .scoring = ScoringFunction::kSoftmax,
                         .topk_method = TopkMethod::kGreedy,
                         .norm_topk_prob = false};
    const ModelConfig v3{.q_lora_rank = 1536,
                         .first_k_dense_replace = 3,
                         .num_experts = 256,
                         .num_shared_experts = 1,
                         .num_experts_per_token = 8,
                         .moe_intermediate_size = 2048,
                         .num_groups = 8,
                         .topk_groups = 4,
                         .routed_scaling_factor = 2.5};
    ModelConfig kimi_part = v3;
    kimi_part.tensor_prefix = "language_model.";
    kimi_part.other_parts = {"vision_tower.", "mm_projector."};
    ModelConfig glm = v3;
    glm.num_groups = glm.topk_groups = 1;
    glm.rms_norm_eps = 1e-5;
    ModelConfig glm_dsa = glm;
    glm_dsa.q_lora_rank = 2048;
    glm_dsa.indexer = {.num_heads = 32, .interleaved_rope = true, .is_full = {}};
    ModelConfig v32 = v3;
    v32.indexer.emplace();
    ModelConfig glm_lite = glm;
    glm_lite.q_lora_rank = 768;
    glm_lite.first_k_dense_replace = 1;
    glm_lite.num_experts = 64;
    glm_lite.num_experts_per_token = 4;
    glm_lite.moe_intermediate_size = 1536;
    glm_lite.routed_scaling_factor = 1.8;
    return std::vector<Family>{
        {"DeepseekV2ForCausalLM", "deepseek_v2", false, v2},
        {"DeepseekV3ForCausalLM", "deepseek_v3 kimi_k2", false, v3},
        {"KimiK25ForConditionalGeneration Kimi_K25ForConditionalGeneration", "kimi_k25", true, kimi_part},
        {"Glm4MoeLiteForCausalLM", "glm4_moe_lite", false, glm_lite},
        {"DeepseekV32ForCausalLM", "deepseek_v32", false, v32},
        {"GlmMoeDsaForCausalLM", "glm_moe_dsa", false, glm_dsa},
    };
  }();
  return kFamilies;
}

}  // namespace

Result<const Family*> read_family(JsonKeys& keys) {
  std::vector<std::string> names;
  keys.optional("architectures", names);
  RETURN_IF_ERROR(keys.status());
  std::string supported;
  for (const Family& family : families()) {
    if (names.size() == 1 && has_word(family.architectures, names[0])) return &family;
    supported += (supported.empty() ? "" : " ") + std::string(family.architectures);
  }
  return std::unexpected(
      Error{ErrorCode::kUnsupported,
            fmt::format("{}: architectures is [{}], which is not supported; supported are: {}", keys.path(),
                        escaped(fmt::format("{}", fmt::join(names, ", ")), 200), supported),
            "architectures"});
}

void check_model_type(JsonKeys& keys, const Family& family, ModelConfig& config) {
  std::string type;
  keys.optional("model_type", type);
  if (!type.empty() && !has_word(family.model_types, type))
    config.notes.push_back(fmt::format("model_type {} is not known here; the model is what architectures says",
                                       cachalot::quoted(type, 60)));
}

}  // namespace cachalot
