#pragma once

#include <string>
#include <vector>

#include "base/error.h"
#include "config/model_config.h"
#include "config/model_keys.h"

namespace cachalot {

// The quantization_config of `outer`'s object, if it has one. What this program does not read is refused by name;
// `unknown` gets the keys that are in no table.
Status read_quantization(ModelKeys& outer, QuantizationConfig& quantization, std::vector<std::string>& unknown);

}  // namespace cachalot
