#include "bench/model_bench.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <numeric>
#include <random>
#include <span>

#include "base/math.h"
#include "engine/round.h"
#include "kernels/cpu/limits.h"
#include "model/kv_cache.h"

namespace cachalot {
namespace {

constexpr int kSlices = 4;       // of a decode, each a sample: the limits are measured between them
constexpr int kLimitProbes = 3;  // the best one holds: a probe is some 10 ms, and others may use the machine

class ModelBench {
 public:
  ModelBench(RankEngine& engine, const StoredModel& stored, const ModelBenchOptions& options, Limits limits)
      : engine_(engine),
        config_(engine.config()),
        stored_(stored),
        options_(options),
        limits_(std::move(limits)),
        num_moe_layers_(std::ranges::count_if(stored.layers,
                                              [](const StoredLayer& layer) { return layer.expert.num_weights > 0; })),
        layout_(engine.model().settings().max_rows, engine.memory().block_size) {
    const int length = options.context + options.steps, block_size = engine.memory().block_size;
    const int64_t max_rows = engine.model().settings().max_rows;
    const int max_batch = options.batches.empty() ? 0 : std::ranges::max(options.batches);
    blocks_of_sequence_ = ceil_div(length, block_size);
    blocks_.resize(static_cast<size_t>(engine.memory().num_blocks));
    std::iota(blocks_.begin(), blocks_.end(), 0);
    tokens_.resize(static_cast<size_t>(std::max(options.prefill, max_batch * length)));
    std::mt19937_64 random(1);
    for (TokenId& token : tokens_) token = static_cast<TokenId>(random() % static_cast<uint64_t>(config_.vocab_size));
    expert_ids_.resize(static_cast<size_t>(num_moe_layers_ * max_rows * config_.num_experts_per_token));
    distinct_.resize(static_cast<size_t>(num_moe_layers_));
    chosen_.resize(static_cast<size_t>(config_.num_experts));
    logits_.resize(static_cast<size_t>(std::max(max_batch, 1)) * static_cast<size_t>(config_.vocab_size));
  }

  Result<std::vector<Figure>> run() {
    std::vector<Figure> figures;
    if (options_.prefill > 0) {
      std::vector<Sample> samples;
      RETURN_IF_ERROR(prefill(samples));
      figures.push_back(figure("prefill", options_.prefill, 0, samples));
    }
    fill_contexts();
    for (const int batch : options_.batches) {
      std::vector<Sample> samples;
      RETURN_IF_ERROR(decode(batch, samples));
      figures.push_back(figure("decode", batch, options_.context, samples));
    }
    return figures;
  }

 private:
  // Steps that ran between two measurements of the machine.
  struct Slice {
    double num_tokens = 0, seconds = 0, distinct_experts = 0;
    int num_steps = 0;
    std::vector<Operation> operations;
  };

  // Of the machine; two measurements make the limits of what lies between them.
  MachineLimits measure() {
    MachineLimits best;
    for (int probe = 0; probe < kLimitProbes; probe++) {
      best.bandwidth = std::max(best.bandwidth, limits_.read_bandwidth());
      best.int8_peak = std::max(best.int8_peak, limits_.int8_peak());
      best.float_peak = std::max(best.float_peak, limits_.float_peak());
    }
    return best;
  }

  // What decode attends to, as random as the weights: a step costs the same, and to compute a long context takes hours.
  void fill_contexts() {
    std::mt19937_64 random(2);
    std::normal_distribution<float> normal;
    std::vector<float> numbers(65'521);  // a prime, so that no row meets the same ones
    for (float& number : numbers) number = normal(random);
    size_t next = 0;
    for (const CacheTensor& tensor : cache_tensors(config_)) {
      const ComputeView<2>& view = engine_.cache()(tensor.kind, tensor.layer);
      visit_compute(view.dtype(), [&]<class T>() {
        for (int64_t row = 0; row < view.extent(0); row++)
          for (T& element : std::span(view.as<T>().row(row), static_cast<size_t>(tensor.width)))  // host: no step runs
            element = T(numbers[next++ % numbers.size()]);
      });
    }
  }

  Status prefill(std::vector<Sample>& samples) {
    const StepShape shape{.num_rows = options_.prefill,
                          .num_logit_rows = 1,
                          .cache_element_bytes = static_cast<int64_t>(dtype_size(engine_.cache().dtype()))};
    // The first pass touches memory for the first time, and is not a sample.
    MachineLimits before;
    for (int pass = 0; pass <= options_.repeat; pass++) {
      tell(pass == 0 ? std::string("prefill, warming up") : fmt::format("prefill {} of {}", pass, options_.repeat));
      Slice slice;
      layout_.clear();
      layout_.add(sequence(0, 0, options_.prefill, options_.prefill));
      RETURN_IF_ERROR(step(shape, slice));
      const MachineLimits after = measure();
      if (pass > 0) samples.push_back(sample_of(slice, before, after));
      before = after;
    }
    return {};
  }

  Status decode(int batch, std::vector<Sample>& samples) {
    MachineLimits before = measure();
    for (int pass = 0; pass < options_.repeat; pass++) {
      tell(fmt::format("decode, batch {}, {} of {}", batch, pass + 1, options_.repeat));
      for (int slice_idx = 0; slice_idx < kSlices; slice_idx++) {
        Slice slice;
        for (int idx = options_.steps * slice_idx / kSlices; idx < options_.steps * (slice_idx + 1) / kSlices; idx++) {
          const int position = options_.context + idx;
          layout_.clear();
          for (int sequence_idx = 0; sequence_idx < batch; sequence_idx++)
            layout_.add(sequence(sequence_idx, position, 1, options_.context));
          RETURN_IF_ERROR(step({.generated = true,
                                .num_rows = batch,
                                .first_position = position,
                                .num_logit_rows = batch,
                                .cache_element_bytes = static_cast<int64_t>(dtype_size(engine_.cache().dtype()))},
                               slice));
        }
        if (slice.num_steps == 0) continue;
        const MachineLimits after = measure();
        samples.push_back(sample_of(slice, before, after));
        before = after;
      }
    }
    return {};
  }

  // Runs a step of the sequences in layout_ and adds it to the slice.
  Status step(const StepShape& shape, Slice& slice) {
    ModelBatch batch = layout_.build(num_steps_++);
    if (num_moe_layers_ > 0)
      batch.chosen_expert_ids =
          View<int32_t, 3>(expert_ids_.data(), num_moe_layers_, shape.num_rows, config_.num_experts_per_token);
    // The last rows' logits: a prompt's last token, or every generated one.
    row_ids_.resize(static_cast<size_t>(shape.num_logit_rows));
    std::iota(row_ids_.begin(), row_ids_.end(), static_cast<int32_t>(shape.num_rows - shape.num_logit_rows));
    const View<float, 2> logits(logits_.data(), shape.num_logit_rows, config_.vocab_size);

    const auto begin = std::chrono::steady_clock::now();
    RETURN_IF_ERROR(engine_.model().forward(batch, engine_.cache()));
    RETURN_IF_ERROR(engine_.model().logits(View<const int32_t, 1>(row_ids_.data(), row_ids_.size()), logits));
    slice.seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();

    count_distinct(shape.num_rows);
    slice.num_steps++;
    slice.num_tokens += static_cast<double>(shape.num_rows);
    if (num_moe_layers_ > 0)
      slice.distinct_experts +=
          std::accumulate(distinct_.begin(), distinct_.end(), 0.0) / static_cast<double>(num_moe_layers_);
    const std::vector<Operation> operations = step_operations(config_, stored_, shape, distinct_);
    slice.operations.insert(slice.operations.end(), operations.begin(), operations.end());
    return {};
  }

  void count_distinct(int64_t num_rows) {
    const auto ids_of_layer = static_cast<size_t>(num_rows * config_.num_experts_per_token);
    for (size_t layer = 0; layer < distinct_.size(); layer++) {
      std::ranges::fill(chosen_, 0);
      for (const int32_t id : std::span(expert_ids_).subspan(layer * ids_of_layer, ids_of_layer))
        chosen_[static_cast<size_t>(id)] = 1;
      distinct_[layer] = static_cast<int>(std::ranges::count(chosen_, 1));
    }
  }

  Sample sample_of(const Slice& slice, const MachineLimits& before, const MachineLimits& after) const {
    const MachineLimits limits{(before.bandwidth + after.bandwidth) / 2, (before.int8_peak + after.int8_peak) / 2,
                               (before.float_peak + after.float_peak) / 2};
    return {.num_tokens = slice.num_tokens,
            .seconds = slice.seconds,
            .least_seconds = least_seconds(slice.operations, limits),
            .step_bytes =
                std::accumulate(slice.operations.begin(), slice.operations.end(), 0.0,
                                [](double sum, const Operation& operation) { return sum + operation.num_bytes; }) /
                slice.num_steps,
            .limits = limits,
            .distinct_experts = slice.distinct_experts / slice.num_steps};
  }

  Figure figure(const char* phase, int batch, int context, std::span<const Sample> samples) const {
    Figure figure{.phase = phase,
                  .batch = batch,
                  .isa = std::string(isa_name(engine_.isa())),
                  .context = context,
                  .uniform_distinct_experts =
                      uniform_distinct_experts(config_.num_experts, config_.num_experts_per_token, batch)};
    summarize(samples, figure);
    return figure;
  }

  RoundSequence sequence(int sequence_idx, int first_position, int num_tokens, int num_prompt_tokens) const {
    const auto first_token = static_cast<size_t>(sequence_idx * (options_.context + options_.steps) + first_position);
    const auto first_block = static_cast<size_t>(sequence_idx * blocks_of_sequence_);
    return {.first_position = first_position,
            .num_tokens = num_tokens,
            .num_prompt_tokens = num_prompt_tokens,
            .tokens = std::span(tokens_).subspan(first_token, static_cast<size_t>(num_tokens)),
            .blocks = std::span(blocks_).subspan(first_block)};
  }

  void tell(const std::string& what) const {
    if (options_.on_progress) options_.on_progress(what);
  }

  RankEngine& engine_;
  const ModelConfig& config_;
  const StoredModel& stored_;
  const ModelBenchOptions& options_;
  Limits limits_;
  int64_t num_moe_layers_ = 0;
  int blocks_of_sequence_ = 0;
  std::vector<BlockId> blocks_;  // all of the cache's, a run of them for each sequence
  std::vector<TokenId> tokens_;  // random; a sequence's begin at its index, so that no two are alike
  std::vector<int32_t> expert_ids_, row_ids_;
  std::vector<int> distinct_;  // of the last step's MoE layers
  std::vector<char> chosen_;   // [num_experts]
  std::vector<float> logits_;
  StepBatch layout_;
  uint64_t num_steps_ = 0;
};

}  // namespace

void reserve_for_bench(const ModelBenchOptions& options, EngineOptions& engine) {
  const int max_batch = options.batches.empty() ? 0 : std::ranges::max(options.batches);
  const int length = options.context + options.steps;
  const auto blocks_of = [&](int num_tokens) { return ceil_div(num_tokens, engine.block_size); };
  engine.max_num_batched_tokens = std::max({options.prefill, max_batch, 1});
  engine.max_num_seqs = std::max(max_batch, 1);
  engine.max_model_len = std::max(options.prefill, length);
  engine.num_gpu_blocks_override = std::max(blocks_of(options.prefill), max_batch * blocks_of(length));
}

Result<std::vector<Figure>> run_model_bench(RankEngine& engine, const StoredModel& stored,
                                            const ModelBenchOptions& options) {
  ASSIGN_OR_RETURN(Limits limits, Limits::create(engine.isa(), engine.device()));
  return ModelBench(engine, stored, options, std::move(limits)).run();
}

}  // namespace cachalot
