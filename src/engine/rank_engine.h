#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "base/error.h"
#include "comm/expert_exchange.h"
#include "comm/group.h"
#include "comm/mesh.h"
#include "config/options.h"
#include "core/step.h"
#include "device/device.h"
#include "engine/balancing.h"
#include "engine/epoch.h"
#include "engine/expert_slots.h"
#include "engine/lockstep.h"
#include "engine/memory_plan.h"
#include "engine/placement.h"
#include "engine/round.h"
#include "model/deepseek.h"
#include "placement/loss.h"
#include "sampler/sampler.h"
#include "weights/model_files.h"

namespace cachalot {

// One rank: its part of the model, its KV cache, and on a replica's leader the sampler. All ranks of a group run the
// same rounds (engine/lockstep.h): a leader from its scheduler's plan, its other ranks from what the leader announces.
// Created and driven by one thread.
class RankEngine {
 public:
  // Loads the model of options.model. All ranks of the placement's mesh do so at the same time: before they load they
  // agree on the memory plan. One that loads alone (Placement::loads_alone) does so in its first epoch. Errors: the
  // folder (file and tensor named), memory, an instruction set that is not here, a layout that the model does not
  // divide into, ranks whose plans do not fit together.
  static Result<std::unique_ptr<RankEngine>> create(const EngineOptions& options, const Placement& placement,
                                                    WeightPacker::Progress progress);
  // The one rank of a model that is not spread.
  static Result<std::unique_ptr<RankEngine>> create(const EngineOptions& options, WeightPacker::Progress progress);

  // Goes on in another epoch, with other ranks; all of its members do so at the same time. What was under way is given
  // up; weights and KV cache stay. Experts that nobody holds any more are loaded by who has room for them, before
  // anybody steps; where there is none, all wait in this epoch. Errors: those of the mesh; this rank is refused.
  Status enter(Epochs::Next next);
  // The same in the first epoch that comes to be.
  Status enter_next(Epochs& epochs, Error why);
  // All ranks of this one's replica are there, and all experts, so that it steps, and has a KV cache. Else this rank
  // does rounds without rows, on its own.
  bool serves() const { return roles_.serves; }
  // Whether another process than before has a rank of the replica: then what the KV cache holds is not on all of them.
  // Once.
  bool take_blocks_lost() { return std::exchange(blocks_lost_, false); }

  // Of a leader, and without rows of each rank of a replica that does not serve: announces the round to its ranks and
  // runs its steps. num_steps is what the replicas agreed on, at most the plan's. The plan may be empty: then this
  // replica takes part with zero rows. An error is the whole round's; what concerns one sequence is in its result.
  Result<StepResult> run(const StepPlan& plan, int num_steps);
  Result<StepResult> run(const StepPlan& plan) { return run(plan, plan.num_steps); }
  // Of a leader: one step of one sequence; logits [num_tokens, vocab_size] of all its rows.
  Status run_for_logits(const RoundSequence& sequence, View<float, 2> logits);
  // Of a leader: tells its ranks that this was all.
  Status dismiss();
  // Of the other ranks: takes part in what the leader announced.
  Status follow(const Round& round);

  RankReport report() const;

  Lockstep& lockstep() { return *lockstep_; }
  const Placement& placement() const { return placement_; }
  const MemoryPlan& memory() const { return memory_; }
  const ModelConfig& config() const { return model_->config(); }
  DeepseekModel& model() { return *model_; }
  const KvCache& cache() const { return cache_; }
  IsaLevel isa() const { return model_->isa(); }
  Device& device() { return *device_; }
  int num_threads() { return device_->threads().num_threads(); }
  uint64_t num_steps() const { return num_steps_; }
  const Balancing* balancing() const { return balancing_.get(); }  // null: experts stay where they are
  // From now on this rank's doings are noted there, span by span; null: nowhere. Borrowed.
  void set_trace(StepTrace* trace);

 private:
  // A sequence while the round lasts.
  struct Active {
    RoundSequence now;  // of the next step
    TokenId last = 0;   // sampled by the last step
    bool finished = false;
    // A leader's.
    const PlannedSequence* planned = nullptr;
    SequenceResult* result = nullptr;
    std::span<TokenId> room;  // for what the round samples, [max_steps]
    int num_sampled = 0;      // of which so many are there
    std::span<const TokenId> sampled() const { return room.first(static_cast<size_t>(num_sampled)); }
  };
  // A row whose logits are wanted, and for what.
  struct WantedRow {
    Active* sequence;
    int32_t row;
    int next_position;  // of the prompt's token that they speak of
  };

  RankEngine(const EngineOptions& options, const Placement& placement, std::unique_ptr<Mesh> own_mesh);
  Status load(WeightPacker::Progress progress);
  // Makes this rank's groups; settings: the model's, but for where the experts are; has_experts: they are all there.
  Status connect(const ModelConfig& config, const ModelSettings& settings, bool has_experts);
  // Of what all living ranks have told each other as an epoch begins.
  struct Greeted {
    uint32_t placement_version = 0;  // the newest
    CommonPlan plan;
  };
  Result<Greeted> greet(const std::vector<int>& living);
  Result<AfterLoss> place_experts(const std::vector<int>& living, uint32_t version);
  Status load_lost_experts(const std::vector<int>& living, const AfterLoss& experts);
  // Plans this rank's memory, and cuts the plan to what all ranks can have, unless they are to meet later.
  Status plan(const ModelConfig& config, const RankMemory& rank_memory);
  void hold_plan(const CommonPlan& plan);
  void log_memory(const ModelConfig& config) const;
  Status allocate_cache();
  Result<Survival> choose_survival(const ModelConfig& config, const RankMemory& without);
  // Where all ranks live. Lost experts lie where they can until then.
  Status start_balancing();
  bool leads() const { return placement_.parallel.is_leader(); }
  bool has_cache() const { return cache_.num_slots() > 0; }

  // Time of a round, without what the mesh counts of it.
  class ComputeTime;
  Status run_steps(int num_steps);
  Status forward();  // what batch_ holds
  Status step(std::span<Active*> active, bool last);
  Status run_all_logits(const RoundSequence& sequence, View<float, 2> logits);
  Status report_prompt(std::span<Active*> active);
  Status sample(std::span<Active*> active);
  Status share_tokens(std::span<Active*> active);
  void take_token(Active& sequence, Result<SampledToken> sampled);
  static void prepare_next_step(Active& sequence);
  void reserve_lists();
  void start_round(int num_steps);
  void activate(const RoundSequence& now, const PlannedSequence* planned, SequenceResult* result);
  template <class Body>
  Status read_wanted(Body body);
  // The logits of rows of the last step: on the leader, in memory that the next call reuses; elsewhere nothing.
  Result<View<float, 2>> logits(std::span<const int32_t> row_ids);

  EngineOptions options_;
  Placement placement_;
  std::unique_ptr<Mesh> own_mesh_;  // of one rank that has no group
  std::unique_ptr<Device> device_;
  EpochRoles roles_;
  std::vector<uint64_t> block_holders_;  // the processes of the replica's ranks, which have its blocks
  bool blocks_lost_ = false;
  std::unique_ptr<Group> tensor_group_;
  std::unique_ptr<ExpertExchange> exchange_;
  ExpertExchange::Counters exchange_counters_;  // of the epochs before
  SharedPlacement experts_;                     // of the last epoch that had all
  std::unique_ptr<DeepseekModel> model_;
  // Where experts are shared out over ranks.
  std::optional<ModelFiles> files_;
  std::optional<ExpertSlots> slots_;
  std::vector<uint64_t> own_choices_;     // where nobody else counts them
  std::unique_ptr<Balancing> balancing_;  // none: they do not
  Balancing::Counts balancing_counts_;    // of the epochs before
  std::unique_ptr<Lockstep> lockstep_;
  MemoryPlan memory_;
  RankNumbers numbers_;
  int64_t arithmetic_ = 0;
  RoundLimits limits_;
  Buffer cache_memory_, logits_memory_;
  KvCache cache_;
  int64_t max_logit_rows_ = 0;
  std::unique_ptr<StepBatch> batch_;
  std::vector<std::unique_ptr<Sampler>> samplers_;  // one a thread; a leader's
  // Of a round and of a step; reserved for the largest.
  std::vector<Active> active_;
  std::vector<Active*> running_;
  std::vector<WantedRow> wanted_;
  std::vector<int32_t> row_ids_;
  std::vector<TokenId> sampled_;  // [max_num_seqs, max_steps]
  Round round_;                   // that a leader announces
  struct Choice {
    TokenId token;
    int32_t finished;
  };
  std::vector<Choice> choices_;  // of a step, on their way from the leader to its ranks
  uint64_t num_steps_ = 0, num_steps_without_rows_ = 0, sequence_parallel_rows_ = 0;
  std::chrono::nanoseconds time_computing_{0}, time_between_epochs_{0};
  uint64_t num_epoch_changes_ = 0, num_lost_experts_loaded_ = 0, num_ranks_lost_ = 0;
  std::vector<EpochMember> members_;  // of the last epoch that it has entered; of the first without agents: none
  StepTrace* trace_ = nullptr;
};

}  // namespace cachalot
