#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "config/model_config.h"
#include "config/options.h"
#include "engine/memory_plan.h"
#include "preflight/step_traffic.h"
#include "weights/weight_catalog.h"

namespace cachalot {

struct LayoutPlanOptions {
  EngineOptions engine;
  ParallelOptions parallel;
  int num_nodes = 1;
  size_t node_bytes = 0;   // memory of each; 0: not known
  int decode_batch = 32;   // sequences of each replica
  int decode_context = 0;  // tokens that each has; 0: 4096, or the longest if that is less
};

struct RankPlan {
  int rank = 0;  // of all
  RankMemory memory;
};

// A step of all replicas together.
struct StepCost {
  std::string phase;             // "decode", "prefill"
  int64_t rows_per_replica = 0;  // one token each
  int64_t rows = 0;              // of all replicas
  double read_bytes = 0;         // weights and KV cache that the busiest rank reads
  double operations = 0;         // two a product of a linear, for all rows
  StepTraffic traffic;

  // Tokens a second of the whole layout, at most: for each GB/s of memory bandwidth that a rank has, for each GB/s of
  // a node's link in one direction, and for each 10^12 operations a second of a rank. Infinite: needs none.
  double tokens_per_memory_gb() const;
  double tokens_per_link_gb() const;
  double tokens_per_tera_operation(int num_ranks) const;
};

struct LayoutPlan {
  LayoutPlanOptions options;
  NodeLayout layout;
  ModelConfig config;
  int max_model_len = 0;      // as wanted
  SharedPlacement placement;  // of the experts; null: there are none
  Survival survival;          // what --survive comes to; of auto: with the nodes' memory, else none
  std::vector<RankPlan> ranks;
  std::optional<MemoryPlan> memory;  // of the rank that needs most, where the nodes' memory is known
  std::optional<Error> misfit;       // instead, if that is not enough
  StepCost decode, prefill;

  const RankMemory& largest() const;
  // What a device (a rank's share of its node) must have, so that `num_requests` of max_model_len fit at once.
  size_t device_bytes_for(int num_requests) const;
  int64_t num_requests() const;  // of max_model_len, that the KV cache holds; needs `memory`
};

// The error: a layout that does not divide.
Result<LayoutPlan> plan_layout(const LayoutPlanOptions& options, const ModelConfig& config,
                               const WeightCatalog& catalog);

// What the weights are, for the headings: the file or folder, how it stores them, and the bytes of its tensors.
struct PlanSubject {
  std::string model, weights;
  uint64_t file_bytes = 0;
};

// Tables for people.
std::string plan_text(const LayoutPlan& plan, const PlanSubject& subject);
// The same and every rank by itself.
std::string plan_json(const LayoutPlan& plan, const PlanSubject& subject);

}  // namespace cachalot
