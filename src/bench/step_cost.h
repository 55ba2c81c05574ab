#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "bench/stored_model.h"

// The least time that a step can take on a machine: each of its operations reads its bytes once and computes its
// products once, at the machine's full speed, whichever takes longer.
namespace cachalot {

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
// all rows of a prompt) and multiplies in fp32. Norms and activations, which stay in caches, count nothing.
std::vector<Operation> step_operations(const ModelConfig& config, const StoredModel& model, const StepShape& shape,
                                       std::span<const int> distinct_experts);

double least_seconds(std::span<const Operation> operations, const MachineLimits& limits);

// Distinct experts that `num_rows` rows choose on average when each expert is as likely as any other. With
// group-limited routing too: a row's choices depend on each other then, but rows do not.
double uniform_distinct_experts(int num_experts, int top_k, int64_t num_rows);

}  // namespace cachalot
