#include "model_harness.h"

#include <gtest/gtest.h>

#include <cstring>
#include <mutex>
#include <thread>

namespace cachalot::test {
namespace {

constexpr std::chrono::milliseconds kDeadline{120'000};
constexpr int kBlockSize = 64;

}  // namespace

struct ModelRun::Rank {
  int dp_rank = 0, tp_rank = 0;
  std::unique_ptr<Device> device;
  std::unique_ptr<LocalGroup> group;
  std::unique_ptr<LocalExpertExchange> exchange;
  std::unique_ptr<DeepseekModel> model;
  Buffer cache_memory;
  ComputeView<3> cache;
};

ModelRun::ModelRun(const std::string& folder, const RunOptions& options) : options_(options) {
  auto files = ModelFiles::open(folder);
  if (!files) {
    ADD_FAILURE() << files.error().message;
    return;
  }
  files_.emplace(std::move(*files));
  load_ranks();
}

void ModelRun::load_ranks() {
  const Layout& layout = options_.layout;
  const int num_hubs = layout.expert_parallel ? 1 : layout.num_ranks();
  for (int hub = 0; hub < num_hubs; hub++)
    expert_hubs_.push_back(std::make_unique<LocalHub>(layout.expert_parallel ? layout.num_ranks() : 1, kDeadline));
  for (int dp_rank = 0; dp_rank < layout.dp_size; dp_rank++)
    tensor_hubs_.push_back(std::make_unique<LocalHub>(layout.tp_size, kDeadline));

  for (int rank_idx = 0; rank_idx < layout.num_ranks(); rank_idx++) {
    auto rank = std::make_unique<Rank>();
    rank->dp_rank = rank_idx / layout.tp_size;
    rank->tp_rank = rank_idx % layout.tp_size;
    rank->device =
        std::make_unique<Device>(ThreadPoolOptions{.num_threads = options_.num_threads, .spin_microseconds = 0});
    rank->group = std::make_unique<LocalGroup>(*tensor_hubs_[static_cast<size_t>(rank->dp_rank)], rank->tp_rank);
    const ModelSettings settings{.compute_dtype = options_.compute_dtype,
                                 .activation_dtype = options_.activation_dtype,
                                 .tp_rank = rank->tp_rank,
                                 .tp_size = layout.tp_size,
                                 .expert_parallel = layout.expert_parallel,
                                 .ep_rank = layout.expert_parallel ? rank_idx : 0,
                                 .ep_size = layout.expert_parallel ? layout.num_ranks() : 1,
                                 .max_rows = options_.max_rows,
                                 .max_logit_rows = 64,
                                 .max_positions = 4096};
    if (config().num_experts > 0) {
      auto exchange =
          LocalExpertExchange::create(*expert_hubs_[layout.expert_parallel ? 0 : static_cast<size_t>(rank_idx)],
                                      layout.expert_parallel ? rank_idx : 0,
                                      {.num_experts = config().num_experts,
                                       .top_k = config().num_experts_per_token,
                                       .hidden_size = config().hidden_size,
                                       .row_bytes = config().hidden_size * 4,
                                       .max_rows = options_.max_rows,
                                       .compute_dtype = options_.compute_dtype});
      ASSERT_TRUE(exchange) << exchange.error().message;
      rank->exchange = std::move(*exchange);
    }
    auto model = DeepseekModel::load(config(), settings, *files_, *rank->device, options_.isa, *rank->group,
                                     rank->exchange.get(), {});
    ASSERT_TRUE(model) << model.error().message;
    rank->model = std::move(*model);
    const int64_t num_slots = 4096;
    auto memory = Device::allocate(static_cast<size_t>(config().num_layers * num_slots * config().kv_cache_dim()) *
                                   dtype_size(options_.compute_dtype));
    ASSERT_TRUE(memory) << memory.error().message;
    rank->cache_memory = std::move(*memory);
    rank->cache = ComputeView<3>(rank->cache_memory.data(), options_.compute_dtype, config().num_layers, num_slots,
                                 config().kv_cache_dim());
    ranks_.push_back(std::move(rank));
  }
}

ModelRun::~ModelRun() = default;

int ModelRun::num_moe_layers() const {
  int count = 0;
  for (int layer = 0; layer < config().num_layers; layer++) count += config().is_moe_layer(layer);
  return count;
}

RunResult ModelRun::logits(const std::vector<TokenId>& tokens, const std::vector<int32_t>& forced_expert_ids) {
  std::vector<RunResult> results(ranks_.size());
  std::vector<std::thread> threads;
  std::mutex mutex;
  for (size_t rank_idx = 0; rank_idx < ranks_.size(); rank_idx++) {
    threads.emplace_back([&, rank_idx] {
      const Status status = run_rank(*ranks_[rank_idx], tokens, forced_expert_ids, results[rank_idx]);
      if (status) return;
      const std::lock_guard lock(mutex);
      ADD_FAILURE() << "rank " << rank_idx << ": " << status.error().message;
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (int rank = 1; rank < options_.layout.tp_size; rank++)
    EXPECT_TRUE(same_bits(results[0].logits, results[static_cast<size_t>(rank)].logits))
        << "rank " << rank << " has other logits than rank 0";
  return std::move(results[0]);
}

Status ModelRun::run_rank(Rank& rank, const std::vector<TokenId>& tokens, const std::vector<int32_t>& forced_expert_ids,
                          RunResult& result) {
  const auto num_tokens = static_cast<int>(tokens.size());
  const int num_prompt = options_.generated_from < 0 ? num_tokens : options_.generated_from;
  if (rank.dp_rank > 0) {
    // An idle replica takes every step with zero rows.
    const int chunk = options_.chunk > 0 ? options_.chunk : options_.max_rows;
    const int num_steps = (num_prompt + chunk - 1) / chunk + num_tokens - num_prompt;
    for (int step = 0; step < num_steps; step++) {
      StepBatch layout(1, kBlockSize);
      RETURN_IF_ERROR(rank.model->forward(layout.build(static_cast<uint64_t>(step)), rank.cache));
    }
    return {};
  }
  const int top_k = std::max(config().num_experts_per_token, 1);
  result.logits.resize(static_cast<size_t>(num_tokens) * static_cast<size_t>(config().vocab_size));
  result.chosen_expert_ids.resize(static_cast<size_t>(num_moe_layers() * num_tokens * top_k));
  return compute_logits(
      *rank.model, rank.cache, kBlockSize,
      {.tokens = tokens,
       .generated_from = options_.generated_from,
       .chunk = options_.chunk,
       .forced_expert_ids = forced_expert_ids.empty()
                                ? View<const int32_t, 3>()
                                : View<const int32_t, 3>(forced_expert_ids.data(), num_moe_layers(), num_tokens, top_k),
       .chosen_expert_ids = View<int32_t, 3>(result.chosen_expert_ids.data(), num_moe_layers(), num_tokens, top_k)},
      View<float, 2>(result.logits.data(), num_tokens, config().vocab_size));
}

bool same_bits(const std::vector<float>& left, const std::vector<float>& right) {
  return left.size() == right.size() && std::memcmp(left.data(), right.data(), left.size() * sizeof(float)) == 0;
}

std::vector<IsaLevel> available_levels() {
  std::vector<IsaLevel> levels;
  for (const IsaLevel level : {IsaLevel::kReference, IsaLevel::kAvx2, IsaLevel::kAvx512}) {
    if (level <= detect_isa()) levels.push_back(level);
  }
  return levels;
}

}  // namespace cachalot::test
