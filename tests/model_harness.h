#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "comm/local/local_expert_exchange.h"
#include "comm/local/local_group.h"
#include "config/engine_options.h"
#include "engine/logits.h"
#include "engine/step_batch.h"
#include "model/deepseek.h"
#include "weights/model_files.h"

// A checkpoint on any layout of ranks, each a thread of the test.
namespace cachalot::test {

struct Layout {
  int dp_size = 1, tp_size = 1;
  bool expert_parallel = true;
  int num_ranks() const { return dp_size * tp_size; }
};

struct RunOptions {
  DType compute_dtype = DType::kF32;
  ActivationDTypeOption activation_dtype = ActivationDTypeOption::kAuto;
  IsaLevel isa = IsaLevel::kReference;
  Layout layout;
  int num_threads = 1;
  int generated_from = -1;
  int chunk = 0;
  int max_rows = 256;
  std::vector<int32_t> forced_expert_ids;  // [num_moe_layers, num_tokens, top_k] or empty
};

struct RunResult {
  std::vector<float> logits;               // [num_tokens, vocab_size], of replica 0
  std::vector<int32_t> chosen_expert_ids;  // [num_moe_layers, num_tokens, top_k]
};

// Loads the folder once for a layout and runs token sequences through replica 0, one after another.
class ModelRun {
 public:
  // Fails the test and stays empty if the folder cannot be loaded.
  ModelRun(const std::string& folder, const RunOptions& options);
  ~ModelRun();

  RunResult logits(const std::vector<TokenId>& tokens, const std::vector<int32_t>& forced_expert_ids = {});
  const ModelConfig& config() const { return files_->config(); }
  int num_moe_layers() const;

 private:
  struct Rank;
  void load_ranks();
  Status run_rank(Rank& rank, const std::vector<TokenId>& tokens, const std::vector<int32_t>& forced_expert_ids,
                  RunResult& result);

  RunOptions options_;
  std::optional<ModelFiles> files_;
  std::vector<std::unique_ptr<LocalHub>> tensor_hubs_, expert_hubs_;
  std::vector<std::unique_ptr<Rank>> ranks_;
};

// Whether every number is the same to the bit.
bool same_bits(const std::vector<float>& left, const std::vector<float>& right);

// The instruction levels that this machine runs.
std::vector<IsaLevel> available_levels();

}  // namespace cachalot::test
