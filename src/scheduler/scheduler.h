#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/error.h"
#include "cache/prefix_cache.h"
#include "config/options.h"
#include "core/generation.h"
#include "core/request.h"
#include "core/step.h"
#include "scheduler/fair_turns.h"

namespace cachalot {

// A request on its way through the scheduler. `request.tokens` grows with the answer.
struct Sequence {
  Request request;
  BlockTable blocks;
  int64_t turn = 0;             // its place in line (FairTurns)
  int num_computed = 0;         // leading tokens whose keys and values are in the blocks
  int num_planned = 0;          // tokens that it brings to the round being planned or under way; 0: takes no part
  int num_cached_tokens = -1;   // of the prompt, found when it was first admitted; -1: it was not yet
  int num_prompt_logprobs = 0;  // handed out, of those it asked for
  bool is_aborted = false;      // during the round under way
  bool waits_for_mask = false;  // of its next token: sits out
  bool is_resumed = false;      // another server began its answer
  RequestProgress told;         // last

  int num_tokens() const { return static_cast<int>(request.tokens.size()); }
  int num_generated() const { return num_tokens() - request.num_prompt_tokens; }
  // How many more it may generate; max_tokens was cut to max_model_len when it came.
  int num_remaining() const { return request.sampling.max_tokens - num_generated(); }
  // All that is left to compute is the token that was generated last.
  bool is_decoding() const { return num_computed == num_tokens() - 1 && num_computed >= request.num_prompt_tokens; }
  // What another server had computed is computed again.
  bool is_recomputing() const { return is_resumed && !is_decoding(); }
  // Of a prefix from the cache: the last token is always computed, so that there are logits; and with prompt logprobs
  // every token whose successor's was not handed out yet.
  int max_cached_tokens() const {
    const bool wants_logprobs =
        request.sampling.num_prompt_logprobs >= 0 && num_prompt_logprobs < request.num_prompt_tokens - 1;
    return wants_logprobs ? num_prompt_logprobs : num_tokens() - 1;
  }
  SequenceTokens view() const {
    return {.tokens = request.tokens, .num_prompt_tokens = request.num_prompt_tokens, .salt = request.cache_salt};
  }
};

struct SchedulerOptions {
  int max_num_batched_tokens = 2048;  // of a step
  int max_num_seqs = 256;             // running at once
  int max_model_len = 0;              // prompt and answer together
  int num_scheduler_steps = 1;
  SchedulingPolicy policy = SchedulingPolicy::kFcfs;
  PrefixCacheOptions cache;

  static constexpr int kResumedShare = 4;  // of a step's tokens one in so many is for answers that others began
};

// Decides what runs next: continuous batching with chunked prefill, prefix caching and preemption by recomputation. A
// pure state machine; it knows no model, device or clock. Used by one thread, in turns:
//
//   StepPlan plan = scheduler.plan();
//   ... the rank runs it ...
//   outputs = scheduler.commit(std::move(result));   or abandon_round()
//
// Requests stand in one strict order: under fcfs by turn, under priority by priority and then turn; those of one turn
// by arrival. Turns are shared between clients (FairTurns): without clients all have the same. Nobody overtakes the
// first that waits, and when blocks run out, the last that runs gives his back and waits again, keeping his tokens. So
// the first always gets on, and under fcfs everybody becomes the first.
class Scheduler {
 public:
  explicit Scheduler(const SchedulerOptions& options);

  // kInvalidArgument: can never run, with the numbers. Looks at nothing that changes: any thread may ask.
  Status check(const Request& request) const;
  // The same check; and kUnavailable: draining.
  Status add(Request request);

  // The next round; empty if there is nothing to do, or nothing but to wait for masks, whose constraints then wake who
  // asked them to. Its spans and pointers hold until commit(). More than one step
  // only if every sequence brings one generated token; the rank may run fewer, so that the plan is also a replica's
  // wish.
  StepPlan plan(int max_num_steps = std::numeric_limits<int>::max());
  std::vector<RequestOutput> commit(StepResult result);
  // Instead of commit(): nothing of the round is kept, and the next one begins where it began. Gives the last outputs
  // of requests that were aborted meanwhile.
  std::vector<RequestOutput> abandon_round();
  // Between rounds: what the blocks held is lost. All requests wait again, with their tokens, and nothing is found in
  // the cache.
  void forget_blocks();

  // Ends a request. If it is in the round under way, its last output comes with commit(), without that round's tokens;
  // else now. Unknown or finished ids are ignored.
  std::optional<RequestOutput> abort(RequestId id);
  // Ends all requests and abandons the round under way, if any: after a failed step, or when a drain takes too long.
  // `code`: of the error; kUnavailable: others are at fault.
  std::vector<RequestOutput> finish_all(FinishReason reason, const std::string& error,
                                        ErrorCode code = ErrorCode::kUnavailable);
  // From now on add() refuses; what is here goes on to its end.
  void drain() { is_draining_ = true; }

  bool has_work() const { return !sequences_.empty(); }
  ReplicaStats stats() const;
  const BlockPool& blocks() const { return cache_.pool(); }

 private:
  friend Status check_integrity(const Scheduler& scheduler);  // of tests
  struct Order {
    bool by_priority = false;
    bool operator()(const Sequence* left, const Sequence* right) const;
  };

  int max_answer(const Request& request) const;
  void plan_decodes();
  void plan_resumed();
  void plan_prefills();
  bool admit(Sequence& sequence);
  bool waits_for_prompt(const Sequence& sequence, int num_cached_blocks) const;
  bool is_worth_preempting_for(const Sequence& sequence, int num_blocks) const;
  void preempt_last();
  void schedule(Sequence& sequence, int num_tokens);
  int reserve_steps(int max_num_steps);
  RequestOutput advance(Sequence& sequence, SequenceResult result);
  void append_tokens(Sequence& sequence, const SequenceResult& result, RequestOutput& output);
  void take_prompt_logprobs(Sequence& sequence, std::vector<SampledToken> entries, int num_planned,
                            RequestOutput& output);
  void tell_progress(std::vector<RequestOutput>& outputs);
  void remove(Sequence& sequence);

  SchedulerOptions options_;
  PrefixCache cache_;
  Order order_;
  FairTurns turns_;
  std::unordered_map<RequestId, std::unique_ptr<Sequence>> sequences_;
  std::set<Sequence*, Order> waiting_;  // hold no blocks
  std::vector<Sequence*> running_;      // in order; hold the blocks of all their known tokens
  std::vector<Sequence*> in_flight_;    // of the round under way, in the plan's order
  int num_watched_ = 0;                 // that want to hear of their progress
  int token_budget_ = 0;                // what is left of it while a round is planned,
  int resumed_budget_ = 0;              // and for what is computed again of answers that others began
  int num_steps_ = 1;                   // of the round under way
  uint64_t round_ = 0;
  bool is_draining_ = false;
  ReplicaStats stats_;
};

// The scheduler of an engine whose KV cache has so many blocks and holds sequences of at most max_model_len tokens.
SchedulerOptions make_scheduler_options(const EngineOptions& options, int num_blocks, int max_model_len,
                                        const BlockHashKey& hash_key = random_block_hash_key());

}  // namespace cachalot
