#include "engine/rank_engine.h"

#include <algorithm>

#include "base/log.h"
#include "core/finish.h"
#include "device/cores.h"
#include "weights/model_files.h"

namespace cachalot {
namespace {

constexpr std::chrono::seconds kCollectiveDeadline{60};
constexpr int64_t kMaxLogitRows = 256;  // at a time; they bound the memory of prompt logprobs

Result<IsaLevel> choose_isa(IsaOption option) {
  const IsaLevel best = detect_isa();
  const IsaLevel wanted = option == IsaOption::kAuto        ? best
                          : option == IsaOption::kReference ? IsaLevel::kReference
                          : option == IsaOption::kAvx2      ? IsaLevel::kAvx2
                                                            : IsaLevel::kAvx512;
  if (wanted > best)
    return make_parameter_error("--isa", "--isa {}: this CPU runs at most {}", isa_name(wanted), isa_name(best));
  return wanted;
}

ModelSettings settings_of(const EngineOptions& options, const ModelConfig& config) {
  return {.compute_dtype = options.dtype == DTypeOption::kFloat32 ? DType::kF32 : DType::kBF16,
          .activation_dtype = options.activation_dtype,
          .max_rows = options.max_num_batched_tokens,
          .max_logit_rows = std::min<int64_t>(kMaxLogitRows, std::max(options.max_num_seqs, 16)),
          .max_positions = options.max_model_len > 0 ? options.max_model_len : config.max_position_embeddings};
}

}  // namespace

RankEngine::RankEngine(const EngineOptions& options, std::unique_ptr<Device> device)
    : options_(options),
      device_(std::move(device)),
      tensor_hub_(1, kCollectiveDeadline),
      expert_hub_(1, kCollectiveDeadline),
      tensor_group_(tensor_hub_, 0) {}

Result<std::unique_ptr<RankEngine>> RankEngine::create(const EngineOptions& options, WeightPacker::Progress progress) {
  std::unique_ptr<RankEngine> engine(new RankEngine(options, std::make_unique<Device>(plan_threads(allowed_cores(), options.threads))));
  RETURN_IF_ERROR(engine->load(std::move(progress)));
  return engine;
}

Status RankEngine::load(WeightPacker::Progress progress) {
  ASSIGN_OR_RETURN(const IsaLevel isa, choose_isa(options_.isa));
  ASSIGN_OR_RETURN(const ModelFiles files, ModelFiles::open(options_.model));
  const ModelConfig& config = files.config();
  if (options_.max_model_len > config.max_position_embeddings) {
    return make_parameter_error("--max-model-len", "--max-model-len {}: the model has max_position_embeddings {} ({}/config.json)", options_.max_model_len,
                                config.max_position_embeddings, options_.model);
  }
  ModelSettings settings = settings_of(options_, config);
  ASSIGN_OR_RETURN(const ModelMemory model_memory, DeepseekModel::plan(config, settings, files, num_threads()));
  ASSIGN_OR_RETURN(memory_, plan_memory(options_, config, model_memory, memory_info(), 1));
  log::info("{}", memory_.describe());
  if (memory_.max_model_len_was_cut)
    log::warn("max_model_len is {}: the KV cache holds no more; the model could do {}", memory_.max_model_len, config.max_position_embeddings);
  settings.max_positions = memory_.max_model_len;

  if (config.num_experts > 0) {
    const ExpertExchangeLimits limits{.num_experts = config.num_experts,
                                      .top_k = config.num_experts_per_token,
                                      .hidden_size = config.hidden_size,
                                      .row_bytes = config.hidden_size * 4,
                                      .max_rows = settings.max_rows,
                                      .compute_dtype = settings.compute_dtype};
    ASSIGN_OR_RETURN(exchange_, LocalExpertExchange::create(expert_hub_, 0, limits));
  }
  ASSIGN_OR_RETURN(model_, DeepseekModel::load(config, settings, files, *device_, isa, tensor_group_, exchange_.get(), std::move(progress)));

  const int64_t num_slots = int64_t{memory_.num_blocks} * memory_.block_size;
  ASSIGN_OR_RETURN(cache_memory_, Device::allocate(memory_.cache_bytes));
  cache_ = ComputeView<3>(cache_memory_.data(), settings.compute_dtype, config.num_layers, num_slots, config.kv_cache_dim());
  max_logit_rows_ = settings.max_logit_rows;
  ASSIGN_OR_RETURN(logits_memory_, Device::allocate(static_cast<size_t>(max_logit_rows_ * config.vocab_size) * sizeof(float)));
  batch_ = std::make_unique<StepBatch>(settings.max_rows, memory_.block_size);
  for (int thread_idx = 0; thread_idx < num_threads(); thread_idx++) samplers_.push_back(std::make_unique<Sampler>(config.vocab_size));
  active_.reserve(static_cast<size_t>(options_.max_num_seqs));
  return {};
}

Result<StepResult> RankEngine::run(const StepPlan& plan) {
  StepResult result{.round = plan.round, .sequences = std::vector<SequenceResult>(plan.sequences.size())};
  active_.clear();
  for (size_t idx = 0; idx < plan.sequences.size(); idx++) {
    const PlannedSequence& planned = plan.sequences[idx];
    result.sequences[idx].id = planned.id;
    active_.push_back({&planned, &result.sequences[idx], planned.tokens, {}, planned.first_position, planned.num_tokens});
  }
  std::vector<Active*> running;
  for (int step_idx = 0; step_idx < plan.num_steps; step_idx++) {
    running.clear();
    for (Active& sequence : active_) {
      if (sequence.finished) continue;
      if (step_idx > 0) prepare_next_step(sequence);
      running.push_back(&sequence);
    }
    if (running.empty()) break;
    RETURN_IF_ERROR(step(running));
  }
  return result;
}

Status RankEngine::step(std::span<Active*> active) {
  batch_->clear();
  for (const Active* sequence : active) {
    batch_->add({.tokens = sequence->tokens,
                 .first_position = sequence->first_position,
                 .num_tokens = sequence->num_tokens,
                 .num_prompt_tokens = sequence->planned->num_prompt_tokens,
                 .blocks = sequence->planned->blocks});
  }
  RETURN_IF_ERROR(model_->forward(batch_->build(num_steps_), cache_));
  num_steps_++;
  RETURN_IF_ERROR(report_prompt(active));
  return sample(active);
}

// Logprobs of the prompt's tokens, for the sequences that ask: the row of a token speaks of the next one.
Status RankEngine::report_prompt(std::span<Active*> active) {
  struct Row {
    Active* sequence;
    int32_t row;
    TokenId next;
  };
  std::vector<Row> rows;
  for (size_t idx = 0; idx < active.size(); idx++) {
    const PlannedSequence& planned = *active[idx]->planned;
    if (planned.sampling->num_prompt_logprobs < 0) continue;
    const int end = std::min(active[idx]->first_position + active[idx]->num_tokens, planned.num_prompt_tokens - 1);
    for (int position = active[idx]->first_position; position < end; position++)
      rows.push_back({active[idx], batch_->row_of(idx, position), active[idx]->tokens[static_cast<size_t>(position) + 1]});
  }
  std::vector<int32_t> row_ids;
  for (size_t begin = 0; begin < rows.size(); begin += static_cast<size_t>(max_logit_rows_)) {
    const std::span<Row> chunk(rows.data() + begin, std::min(rows.size() - begin, static_cast<size_t>(max_logit_rows_)));
    row_ids.clear();
    for (const Row& row : chunk) row_ids.push_back(row.row);
    const auto logits = logits_memory_.view<float>(chunk.size(), config().vocab_size);
    RETURN_IF_ERROR(model_->logits(View<const int32_t, 1>(row_ids.data(), row_ids.size()), logits));
    for (size_t idx = 0; idx < chunk.size(); idx++) {
      SequenceResult& result = *chunk[idx].sequence->result;
      auto described = samplers_[0]->describe(logits[static_cast<int64_t>(idx)], chunk[idx].next, chunk[idx].sequence->planned->sampling->num_prompt_logprobs);
      if (described) {
        result.prompt_logprobs.push_back(std::move(*described));
      } else {
        take_token(*chunk[idx].sequence, std::unexpected(described.error()));
      }
    }
  }
  return {};
}

// Samples for every sequence whose last known token went through the model, rows shared out over the threads.
Status RankEngine::sample(std::span<Active*> active) {
  std::vector<Active*> sampling;
  std::vector<int32_t> row_ids;
  for (size_t idx = 0; idx < active.size(); idx++) {
    if (!active[idx]->planned->sample || active[idx]->finished) continue;
    sampling.push_back(active[idx]);
    row_ids.push_back(batch_->row_of(idx, active[idx]->first_position + active[idx]->num_tokens - 1));
  }
  for (size_t begin = 0; begin < sampling.size(); begin += static_cast<size_t>(max_logit_rows_)) {
    const size_t count = std::min(sampling.size() - begin, static_cast<size_t>(max_logit_rows_));
    const auto logits = logits_memory_.view<float>(count, config().vocab_size);
    RETURN_IF_ERROR(model_->logits(View<const int32_t, 1>(row_ids.data() + begin, count), logits));
    device_->threads().parallel_for(static_cast<int64_t>(count), 1, [&](int64_t first, int64_t last, int thread_idx) {
      for (int64_t idx = first; idx < last; idx++) {
        Active& sequence = *sampling[begin + static_cast<size_t>(idx)];
        take_token(sequence, samplers_[static_cast<size_t>(thread_idx)]->sample({.logits = logits[idx],
                                                                                 .tokens = sequence.tokens,
                                                                                 .num_prompt_tokens = sequence.planned->num_prompt_tokens,
                                                                                 .sampling = sequence.planned->sampling,
                                                                                 .constraint = sequence.planned->constraint}));
      }
    });
  }
  return {};
}

// Records what was sampled, and whether the sequence ends with it.
void RankEngine::take_token(Active& sequence, Result<SampledToken> sampled) {
  SequenceResult& result = *sequence.result;
  if (!sampled) {
    result.finish = FinishReason::kError;
    result.error = sampled.error().message;
    sequence.finished = true;
    return;
  }
  const TokenId token = sampled->token;
  result.tokens.push_back(std::move(*sampled));
  const int num_generated = static_cast<int>(sequence.tokens.size()) + 1 - sequence.planned->num_prompt_tokens;
  result.finish = finish_reason(*sequence.planned->sampling, num_generated, token);
  sequence.finished = result.finish != FinishReason::kNone;
}

// The token sampled last is what the sequence brings to the next step of the round.
void RankEngine::prepare_next_step(Active& sequence) const {
  if (sequence.extended.empty()) sequence.extended.assign(sequence.tokens.begin(), sequence.tokens.end());
  sequence.extended.push_back(sequence.result->tokens.back().token);
  sequence.tokens = sequence.extended;
  sequence.first_position = static_cast<int>(sequence.tokens.size()) - 1;
  sequence.num_tokens = 1;
}

}  // namespace cachalot
