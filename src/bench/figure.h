#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "config/model_config.h"
#include "weights/checkpoint.h"
#include "weights/weight_catalog.h"

// What a model's steps cost, and what a machine made of them.
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
// The same of a folder's files, with the arithmetic that --activation-dtype auto gives: int8 for weights of four bits.
StoredModel describe_stored_model(const ModelConfig& config, const Checkpoint& checkpoint);

// --- The least time that a step can take on a machine: each of its operations reads its bytes once and computes its
// products once, at the machine's full speed, whichever takes longer.

// What a machine allows, per second: bytes read from memory, operations (two a product) on int8 and on fp32.
struct MachineLimits {
  double bandwidth = 0, int8_peak = 0, float_peak = 0;
};

struct Operation {
  double num_bytes = 0, num_operations = 0;
  Arithmetic arithmetic = Arithmetic::kFloat;
};

// The rows of a step: a piece of one prompt, or one generated token of each of several sequences.
struct StepShape {
  bool generated = false;
  int64_t num_rows = 0;
  int64_t first_position = 0;  // of the prompt's piece; of every generated row
  int64_t num_logit_rows = 0;
  int64_t cache_element_bytes = 2;
};

// The step's operations. `distinct_experts`: how many of each MoE layer's experts the rows chose.
//
// A linear reads its weights as the checkpoint holds them, whatever the program makes of them. kv_b's products count
// like any other linear's: over the context's positions in the expanded form, over the rows in the absorbed one. The
// routed experts of a layer are one operation. Attention reads the latents of the positions that the rows see (once for
// all rows of a prompt) and multiplies in fp32; an indexer reads its keys of them, and rows that choose read the
// latents of what they have chosen. Norms and activations, which stay in caches, count nothing.
std::vector<Operation> step_operations(const ModelConfig& config, const StoredModel& model, const StepShape& shape,
                                       std::span<const int> distinct_experts);

double least_seconds(std::span<const Operation> operations, const MachineLimits& limits);

// Distinct experts that `num_rows` rows choose on average when each expert is as likely as any other. With
// group-limited routing too: a row's choices depend on each other then, but rows do not.
double uniform_distinct_experts(int num_experts, int top_k, int64_t num_rows);

// --- What was measured.

// One measurement: some steps in a row, with the machine's limits of just before and after.
struct Sample {
  double num_tokens = 0, seconds = 0;
  double least_seconds = 0;     // by `limits`
  double step_bytes = 0;        // that a step must read
  MachineLimits limits;         // mean of before and after
  double distinct_experts = 0;  // mean of the steps' MoE layers
};

// What is known of a phase at a batch size. All but the extremes and the experts are of the median sample, so that
// speed, limit and machine belong together, however the machine drifts.
struct Figure {
  std::string phase;  // "prefill" or "decode"
  int batch = 0;      // tokens for prefill
  std::string weights, isa;
  int context = 0;
  double tokens_per_s = 0, min = 0, max = 0;
  double limit_tokens_per_s = 0, step_bytes = 0;
  MachineLimits limits;
  double distinct_experts = 0, uniform_distinct_experts = 0;

  double fraction_of_limit() const { return tokens_per_s / limit_tokens_per_s; }
  // Tokens that gather at few experts, or avoid each other more than chance would, make a figure that means nothing.
  bool counts() const;
};

// Fills what follows from the samples (at least one).
void summarize(std::span<const Sample> samples, Figure& figure);

std::string figures_table(std::span<const Figure> figures);
// {"results": [...]}, a figure a line.
std::string figures_json(std::span<const Figure> figures);

}  // namespace cachalot
