#pragma once

#include <string>
#include <vector>

#include "base/error.h"
#include "config/model_config.h"
#include "config/model_keys.h"

namespace cachalot {

// rope_scaling, or transformers' newer rope_parameters, which also holds rope_theta and says "default" where there is
// no scaling. As in transformers the first goes before the second, and theta inside before theta outside.
// `unknown` gets the keys that are in no table.
Status read_rope(ModelKeys& keys, ModelConfig& config, std::vector<std::string>& unknown);

}  // namespace cachalot
