// What a rank does in a round.
#include <algorithm>
#include <numeric>

#include "core/request.h"
#include "engine/rank_engine.h"

namespace cachalot {
namespace {

// So long a step waits for masks that are not there when its logits are. Most are long before.
constexpr std::chrono::milliseconds kMaskPatience{5};

}  // namespace

Result<StepResult> RankEngine::run(const StepPlan& plan, int num_steps) {
  CHECK(leads() || !serves());
  CHECK(plan.sequences.empty() || (serves() && num_steps <= plan.num_steps));
  CHECK(std::ssize(plan.sequences) <= options_.max_num_seqs && num_steps <= options_.num_scheduler_steps);
  StepResult result{.round = plan.round, .sequences = std::vector<SequenceResult>(plan.sequences.size())};
  active_.clear();
  start_round(num_steps);
  for (size_t idx = 0; idx < plan.sequences.size(); idx++) {
    const PlannedSequence& planned = plan.sequences[idx];
    result.sequences[idx].id = planned.id;
    const RoundSequence sequence{.first_position = planned.first_position,
                                 .num_tokens = planned.num_tokens,
                                 .num_prompt_tokens = planned.num_prompt_tokens,
                                 .sample = planned.sample,
                                 .prompt_logits = planned.sampling->num_prompt_logprobs >= 0,
                                 .tokens = planned.tokens.subspan(static_cast<size_t>(planned.first_position),
                                                                  static_cast<size_t>(planned.num_tokens)),
                                 .blocks = planned.blocks};
    round_.sequences.push_back(sequence);
    result.sequences[idx].tokens.reserve(planned.sample ? static_cast<size_t>(num_steps) : 0);
    activate(sequence, &planned, &result.sequences[idx]);
  }
  RETURN_IF_ERROR(lockstep_->announce(round_));
  RETURN_IF_ERROR(run_steps(num_steps));
  return result;
}

Status RankEngine::run_for_logits(const RoundSequence& sequence, View<float, 2> logits) {
  start_round(1);
  round_.all_logits = true;
  round_.sequences.push_back(sequence);
  RETURN_IF_ERROR(lockstep_->announce(round_));
  return run_all_logits(sequence, logits);
}

Status RankEngine::dismiss() {
  start_round(0);
  round_.leave = true;
  return lockstep_->announce(round_);
}

Status RankEngine::follow(const Round& round) {
  CHECK(!leads());
  if (round.number != num_steps_)
    return make_error(ErrorCode::kInternal, "the leader's round begins with step {}, this rank is at step {}",
                      round.number, num_steps_);
  if (round.all_logits) return run_all_logits(round.sequences[0], {});
  active_.clear();
  for (const RoundSequence& sequence : round.sequences) activate(sequence, nullptr, nullptr);
  return run_steps(round.num_steps);
}

void RankEngine::reserve_lists() {
  const auto sequences = static_cast<size_t>(options_.max_num_seqs),
             rows = static_cast<size_t>(options_.max_num_batched_tokens);
  active_.reserve(sequences);
  running_.reserve(sequences);
  choices_.reserve(sequences);
  round_.sequences.reserve(sequences);
  wanted_.reserve(std::max(rows, sequences));
  row_ids_.reserve(std::max(rows, sequences));
  if (leads()) sampled_.resize(sequences * static_cast<size_t>(options_.num_scheduler_steps));
}

void RankEngine::start_round(int num_steps) {
  round_.number = num_steps_;
  round_.epoch = placement_.mesh->epoch();
  round_.num_steps = num_steps;
  round_.leave = round_.all_logits = false;
  round_.sequences.clear();
}

void RankEngine::activate(const RoundSequence& now, const PlannedSequence* planned, SequenceResult* result) {
  Active sequence{.now = now, .planned = planned, .result = result, .room = {}};
  const auto max_steps = static_cast<size_t>(options_.num_scheduler_steps);
  if (planned) sequence.room = std::span(sampled_).subspan(active_.size() * max_steps, max_steps);
  active_.push_back(sequence);
}

class RankEngine::ComputeTime {
 public:
  explicit ComputeTime(RankEngine& engine) : engine_(engine), in_calls_(clock().total()) {}
  ~ComputeTime() {
    engine_.time_computing_ += std::chrono::steady_clock::now() - begin_ - (clock().total() - in_calls_);
  }
  ComputeTime(const ComputeTime&) = delete;
  ComputeTime& operator=(const ComputeTime&) = delete;

 private:
  const ExchangeClock& clock() const { return engine_.placement_.mesh->clock(); }

  RankEngine& engine_;
  const std::chrono::nanoseconds in_calls_;
  const std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
};

void RankEngine::set_trace(StepTrace* trace) {
  trace_ = trace;
  placement_.mesh->clock().set_trace(trace);
}

// Where replicas step together, a replica whose sequences have all ended goes on with zero rows.
Status RankEngine::run_steps(int num_steps) {
  if (balancing_) RETURN_IF_ERROR(balancing_->before_round(num_steps_));
  const ComputeTime time(*this);
  for (int step_idx = 0; step_idx < num_steps; step_idx++) {
    running_.clear();
    for (Active& sequence : active_) {
      if (sequence.finished) continue;
      if (step_idx > 0) {
        prepare_next_step(sequence);
        RETURN_IF_ERROR(check_step(sequence.now, limits_));
      }
      running_.push_back(&sequence);
    }
    if (running_.empty() && !placement_.parallel.spans_replicas()) break;
    if (placement_.on_activity) placement_.on_activity(num_steps_);
    RETURN_IF_ERROR(step(running_, step_idx + 1 == num_steps));
  }
  if (placement_.on_activity) placement_.on_activity(std::nullopt);
  return {};
}

Status RankEngine::step(std::span<Active*> active, bool last) {
  TraceScope span(trace_, "step");
  batch_->clear();
  for (const Active* sequence : active) batch_->add(sequence->now);
  RETURN_IF_ERROR(forward());
  if (span) span.set_rows(batch_->num_rows());
  RETURN_IF_ERROR(report_prompt(active));
  RETURN_IF_ERROR(sample(active));
  return last ? Status() : share_tokens(active);
}

Status RankEngine::forward() {
  ModelBatch batch = batch_->build(num_steps_);
  batch.trace = trace_;
  RETURN_IF_ERROR(model_->forward(batch, cache_));
  num_steps_++;
  if (batch.num_rows() == 0) num_steps_without_rows_++;
  const RowPartition rows(batch.num_rows(), placement_.parallel.tensor_parallel_size);
  sequence_parallel_rows_ +=
      static_cast<uint64_t>(rows.count(placement_.parallel.tensor_parallel_rank) * config().num_layers);
  return {};
}

Status RankEngine::run_all_logits(const RoundSequence& sequence, View<float, 2> all) {
  if (balancing_) RETURN_IF_ERROR(balancing_->before_round(num_steps_));
  const ComputeTime time(*this);
  batch_->clear();
  batch_->add(sequence);
  RETURN_IF_ERROR(forward());
  row_ids_.resize(static_cast<size_t>(sequence.num_tokens));
  std::iota(row_ids_.begin(), row_ids_.end(), 0);
  for (int64_t begin = 0; begin < sequence.num_tokens; begin += max_logit_rows_) {
    const int64_t count = std::min<int64_t>(max_logit_rows_, sequence.num_tokens - begin);
    ASSIGN_OR_RETURN(const auto rows,
                     logits(std::span(row_ids_).subspan(static_cast<size_t>(begin), static_cast<size_t>(count))));
    if (leads()) std::copy_n(rows.data(), rows.size(), all.row(begin));  // host: logits, as for the sampler
  }
  return {};
}

Result<View<float, 2>> RankEngine::logits(std::span<const int32_t> row_ids) {
  const TraceScope span(trace_, "head");
  const View<float, 2> view =
      leads() ? logits_memory_.view<float>(row_ids.size(), config().vocab_size) : View<float, 2>();
  RETURN_IF_ERROR(model_->logits(View<const int32_t, 1>(row_ids.data(), row_ids.size()), view));
  return view;
}

// body(wanted rows, their logits), on the leader, for as many rows at a time as there is memory for.
template <class Body>
Status RankEngine::read_wanted(Body body) {
  const auto at_most = static_cast<size_t>(max_logit_rows_);
  for (size_t begin = 0; begin < wanted_.size(); begin += at_most) {
    const std::span rows = std::span(wanted_).subspan(begin, std::min(wanted_.size() - begin, at_most));
    row_ids_.clear();
    for (const WantedRow& wanted : rows) row_ids_.push_back(wanted.row);
    ASSIGN_OR_RETURN(const auto logits, this->logits(row_ids_));
    if (leads()) body(rows, logits);
  }
  return {};
}

// Logprobs of the prompt's tokens, for the sequences that ask: the row of a token speaks of the next one.
Status RankEngine::report_prompt(std::span<Active*> active) {
  wanted_.clear();
  for (size_t idx = 0; idx < active.size(); idx++) {
    const RoundSequence& now = active[idx]->now;
    if (!now.prompt_logits) continue;
    const int end = std::min(now.first_position + now.num_tokens, now.num_prompt_tokens - 1);
    if (leads() && end > now.first_position)
      active[idx]->result->prompt_logprobs.reserve(static_cast<size_t>(end - now.first_position));
    for (int position = now.first_position; position < end; position++)
      wanted_.push_back({active[idx], batch_->row_of(idx, position), position + 1});
  }
  return read_wanted([&](std::span<const WantedRow> rows, View<float, 2> logits) {
    for (size_t idx = 0; idx < rows.size(); idx++) {
      Active& sequence = *rows[idx].sequence;
      auto described = samplers_[0]->describe(logits[static_cast<int64_t>(idx)],
                                              sequence.planned->tokens[static_cast<size_t>(rows[idx].next_position)],
                                              sequence.planned->sampling->num_prompt_logprobs);
      if (described) {
        sequence.result->prompt_logprobs.push_back(std::move(*described));
      } else {
        take_token(sequence, std::unexpected(described.error()));
      }
    }
  });
}

// Samples for every sequence whose last known token went through the model, rows shared out over the threads.
Status RankEngine::sample(std::span<Active*> active) {
  wanted_.clear();
  for (size_t idx = 0; idx < active.size(); idx++) {
    const RoundSequence& now = active[idx]->now;
    if (now.sample) wanted_.push_back({active[idx], batch_->row_of(idx, now.first_position + now.num_tokens - 1), 0});
  }
  return read_wanted([&](std::span<const WantedRow> rows, View<float, 2> logits) {
    const TraceScope span(trace_, "sampling");
    const auto deadline = std::chrono::steady_clock::now() + kMaskPatience;
    device_->threads().parallel_for(std::ssize(rows), 1, [&](int64_t first, int64_t last, int thread_idx) {
      for (int64_t idx = first; idx < last; idx++) {
        Active& sequence = *rows[static_cast<size_t>(idx)].sequence;
        if (sequence.finished) continue;  // its prompt's logprobs failed
        if (TokenConstraint* mask = sequence.planned->constraint; mask && !mask->is_ready_by(deadline)) {
          sequence.finished = sequence.result->is_deferred = true;
          continue;
        }
        take_token(sequence, samplers_[static_cast<size_t>(thread_idx)]->sample(
                                 {.logits = logits[idx],
                                  .tokens = sequence.planned->tokens,
                                  .newer = sequence.sampled(),
                                  .num_prompt_tokens = sequence.planned->num_prompt_tokens,
                                  .sampling = sequence.planned->sampling,
                                  .constraint = sequence.planned->constraint}));
      }
    });
  });
}

// The leader tells its ranks what was sampled, for the next step of the round.
Status RankEngine::share_tokens(std::span<Active*> active) {
  if (placement_.parallel.tensor_parallel_size == 1 || active.empty()) return {};
  choices_.resize(active.size());
  for (size_t idx = 0; leads() && idx < active.size(); idx++)
    choices_[idx] = {active[idx]->last, active[idx]->finished};
  RETURN_IF_ERROR(tensor_group_->broadcast(std::as_writable_bytes(std::span(choices_)), 0,
                                           {.operation = "sampled tokens", .step = num_steps_}));
  for (size_t idx = 0; idx < active.size(); idx++) {
    if (choices_[idx].token < 0 || choices_[idx].token >= limits_.vocab_size)
      return make_error(ErrorCode::kCorrupt,
                        "the leader sampled token {} for sequence {} of step {}; the vocabulary has {}",
                        choices_[idx].token, idx, num_steps_, limits_.vocab_size);
    active[idx]->last = choices_[idx].token;
    active[idx]->finished = choices_[idx].finished != 0;
  }
  return {};
}

// Records what was sampled, and whether the sequence ends with it.
void RankEngine::take_token(Active& sequence, Result<SampledToken> sampled) {
  SequenceResult& result = *sequence.result;
  if (!sampled) {
    result.finish = FinishReason::kError;
    result.error_code = sampled.error().code;
    result.error = sampled.error().message;
    sequence.finished = true;
    return;
  }
  sequence.last = sampled->token;
  result.tokens.push_back(std::move(*sampled));
  const int num_known = static_cast<int>(sequence.planned->tokens.size()) + sequence.num_sampled;
  const int num_generated = num_known + 1 - sequence.planned->num_prompt_tokens;
  result.finish = finish_reason(*sequence.planned->sampling, num_generated, sequence.last);
  sequence.finished = result.finish != FinishReason::kNone;
}

// The token sampled last is what the sequence brings to the next step of the round.
void RankEngine::prepare_next_step(Active& sequence) {
  if (sequence.planned) sequence.room[static_cast<size_t>(sequence.num_sampled++)] = sequence.last;
  sequence.now.first_position += sequence.now.num_tokens;
  sequence.now.num_tokens = 1;
  sequence.now.prompt_logits = false;
  sequence.now.tokens = std::span(&sequence.last, 1);
}

}  // namespace cachalot
