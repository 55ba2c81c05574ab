#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "comm/expert_exchange.h"
#include "comm/group.h"
#include "config/options.h"
#include "engine/round.h"
#include "model/deepseek.h"
#include "model_logits.h"
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
  int64_t exchange_max_bytes = 0;
  SharedPlacement placement = nullptr;  // of the experts; null: an even one
  std::vector<int> nodes = {};          // of each rank, for the choice among copies
  int num_move_buffers = 0;
};

// What a replica computes: nothing, if there are no tokens.
struct ReplicaInput {
  std::vector<TokenId> tokens;
  int generated_from = -1;
  std::vector<int32_t> forced_expert_ids = {};  // [num_moe_layers, num_tokens, top_k] or empty
  std::vector<int32_t> forced_positions = {};   // [num_layers, num_tokens, index_topk] or empty
};

struct RunResult {
  std::vector<float> logits;               // [num_tokens, vocab_size]
  std::vector<int32_t> chosen_expert_ids;  // [num_moe_layers, num_tokens, top_k]
  std::vector<int32_t> chosen_positions;   // of models with an indexer: [num_layers, num_tokens, index_topk]
};

// Loads the folder once for a layout and runs token sequences through its replicas, in lockstep.
class ModelRun {
 public:
  // Fails the test and stays empty if the folder cannot be loaded.
  ModelRun(const std::string& folder, const RunOptions& options);
  ~ModelRun();

  // Replica 0 computes, the others bring nothing.
  RunResult logits(const std::vector<TokenId>& tokens, const std::vector<int32_t>& forced_expert_ids = {},
                   const std::vector<int32_t>& forced_positions = {});
  // A sequence a replica, at the same time; one that is through brings nothing to the steps that others still take.
  std::vector<RunResult> run(const std::vector<ReplicaInput>& inputs);

  // From the next run on, the experts stand elsewhere: brought by each rank, from another's memory or only from files.
  // Gives how many came from files. The error: some rank's; then they stand where they stood.
  Result<int64_t> move_to(const SharedPlacement& next, bool from_ranks, const WeightCatalog& files);
  const ModelFiles& files() const { return *files_; }

  // How many rows a sequence brings to each step that it takes.
  std::vector<int> rows_of_steps(const ReplicaInput& input) const;
  const ExpertExchange& exchange(int rank) const;
  const ModelConfig& config() const { return files_->config(); }
  int num_moe_layers() const;

 private:
  struct Rank;
  void load_ranks();
  Status run_rank(Rank& rank, const ReplicaInput& input, size_t num_steps, RunResult& result);

  RunOptions options_;
  std::optional<ModelFiles> files_;
  std::vector<std::unique_ptr<Mesh>> meshes_;
  std::vector<std::unique_ptr<Rank>> ranks_;
};

// Whether every number is the same to the bit.
bool same_bits(const std::vector<float>& left, const std::vector<float>& right);

// The instruction levels that this machine runs.
std::vector<IsaLevel> available_levels();

}  // namespace cachalot::test
