#pragma once

#include "base/error.h"
#include "config/model_config.h"
#include "model/layer_weights.h"
#include "model/model_settings.h"
#include "model/weight_packer.h"
#include "weights/weight_catalog.h"

namespace cachalot {

// Takes this rank's share of every weight, in the order of the forward pass, through `packer` (which may only be
// planning, and then touches no data). Errors name the file and tensor.
Result<ModelWeights> load_weights(const ModelConfig& config, const ModelSettings& settings,
                                  const WeightCatalog& catalog, WeightPacker& packer);

}  // namespace cachalot
