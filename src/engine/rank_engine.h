#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "base/error.h"
#include "comm/local/local_expert_exchange.h"
#include "comm/local/local_group.h"
#include "config/engine_options.h"
#include "core/step.h"
#include "device/device.h"
#include "engine/memory_plan.h"
#include "engine/step_batch.h"
#include "model/deepseek.h"
#include "sampler/sampler.h"

namespace cachalot {

// One rank: the model, its KV cache and the sampler. StepPlan in, StepResult out. Created and driven by one thread.
class RankEngine {
 public:
  // Loads the model of options.model. Errors: the folder (file and tensor named), memory, an instruction set that is not here.
  static Result<std::unique_ptr<RankEngine>> create(const EngineOptions& options, WeightPacker::Progress progress);

  // Runs the round's steps. An error is the whole step's; what concerns one sequence is in its result.
  Result<StepResult> run(const StepPlan& plan);

  const MemoryPlan& memory() const { return memory_; }
  const ModelConfig& config() const { return model_->config(); }
  DeepseekModel& model() { return *model_; }
  const ComputeView<3>& cache() const { return cache_; }  // [num_layers, num_slots, kv_cache_dim]
  IsaLevel isa() const { return model_->isa(); }
  Device& device() { return *device_; }
  int num_threads() { return device_->threads().num_threads(); }
  uint64_t num_steps() const { return num_steps_; }

 private:
  // A sequence while the round lasts.
  struct Active {
    const PlannedSequence* planned;
    SequenceResult* result;
    std::span<const TokenId> tokens;  // known so far: the scheduler's, or `extended` after the first of several steps
    std::vector<TokenId> extended;
    int first_position, num_tokens;   // of the next step
    bool finished = false;
  };

  RankEngine(const EngineOptions& options, std::unique_ptr<Device> device);
  Status load(WeightPacker::Progress progress);
  Status step(std::span<Active*> active);
  Status report_prompt(std::span<Active*> active);
  Status sample(std::span<Active*> active);
  void take_token(Active& sequence, Result<SampledToken> sampled);
  void prepare_next_step(Active& sequence) const;

  EngineOptions options_;
  std::unique_ptr<Device> device_;
  LocalHub tensor_hub_, expert_hub_;
  LocalGroup tensor_group_;
  std::unique_ptr<LocalExpertExchange> exchange_;
  std::unique_ptr<DeepseekModel> model_;
  MemoryPlan memory_;
  Buffer cache_memory_, logits_memory_;
  ComputeView<3> cache_;  // [num_layers, num_slots, kv_cache_dim]
  int64_t max_logit_rows_ = 0;
  std::unique_ptr<StepBatch> batch_;
  std::vector<std::unique_ptr<Sampler>> samplers_;  // one a thread
  std::vector<Active> active_;
  uint64_t num_steps_ = 0;
};

}  // namespace cachalot
