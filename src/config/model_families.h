#pragma once

#include <string_view>

#include "base/error.h"
#include "config/json.h"
#include "config/model_config.h"

// The checkpoints that load, a row each (model_families.cc).
namespace cachalot {

// What a family of checkpoints has of its own. Another one is another row, as long as it computes the same.
struct Family {
  std::string_view architectures, model_types;  // between spaces
  bool is_part;  // the language model's keys are in text_config, beside those of other parts
  // What an absent key means, as the family's published configuration class says: DeepSeek's own
  // configuration_deepseek.py, and transformers' configuration_deepseek_v2.py, _v3.py, _glm4_moe_lite.py and
  // _glm_moe_dsa.py (5.24) where they agree. Keys that give shapes are required all the same, and bos and eos, which
  // other files say better, have no default.
  ModelConfig defaults;
};

// The family that a config.json's `architectures` names; another one is refused.
Result<const Family*> read_family(JsonKeys& keys);

// A line for config.notes, if model_type, which repeats what architectures says, is not one of the family's.
void check_model_type(JsonKeys& keys, const Family& family, ModelConfig& config);

}  // namespace cachalot
