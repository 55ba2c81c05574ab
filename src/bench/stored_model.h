#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/error.h"
#include "config/model_config.h"
#include "weights/checkpoint.h"
#include "weights/weight_catalog.h"

namespace cachalot {

// The numbers that a linear is computed in.
enum class Arithmetic : uint8_t { kInt8, kFloat };

// A linear layer, or several alike as one, as the checkpoint holds it.
struct StoredLinear {
  double num_weights = 0, num_bytes = 0;  // bytes with scales and zero points
  Arithmetic arithmetic = Arithmetic::kFloat;
};

struct StoredLayer {
  std::vector<StoredLinear> linears;  // that every row goes through: all but those below
  StoredLinear kv_b;
  StoredLinear expert;  // a routed one, its three linears together; no weights: the layer is dense
};

// The weights that a step reads, as the checkpoint holds them.
struct StoredModel {
  double embedding_row_bytes = 0;
  std::vector<StoredLayer> layers;
  StoredLinear head;
};

// `look_up` tells how the checkpoint holds a linear, or the embedding.
StoredModel describe_stored_model(const ModelConfig& config,
                                  const std::function<StoredLinear(const ModelTensor&)>& look_up);
// The same of a folder's files, with the arithmetic that --activation-dtype auto gives: int8 for int4 weights.
StoredModel describe_stored_model(const ModelConfig& config, const Checkpoint& checkpoint);

}  // namespace cachalot
