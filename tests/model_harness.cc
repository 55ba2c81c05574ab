#include "model_harness.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <mutex>
#include <numeric>
#include <thread>

#include "comm/local_mesh_test_util.h"
#include "engine/expert_mover.h"
#include "model/feed_forward.h"
#include "model/workspace.h"

namespace cachalot::test {
namespace {

constexpr std::chrono::milliseconds kDeadline{120'000};
constexpr int kBlockSize = 64;

}  // namespace

struct ModelRun::Rank {
  int dp_rank = 0, tp_rank = 0;
  std::unique_ptr<Device> device;
  std::unique_ptr<Group> group;
  std::unique_ptr<ExpertExchange> exchange;
  std::unique_ptr<DeepseekModel> model;
  Buffer cache_memory;
  KvCache cache;
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
  auto meshes = make_local_mesh(layout.num_ranks(), {.deadline = kDeadline});
  ASSERT_TRUE(meshes) << meshes.error().message;
  meshes_ = std::move(*meshes);
  const SharedPlacement placement = options_.placement
                                        ? options_.placement
                                        : even_placement(config(), layout.expert_parallel ? layout.num_ranks() : 1);
  for (int rank_idx = 0; rank_idx < layout.num_ranks(); rank_idx++) {
    auto rank = std::make_unique<Rank>();
    rank->dp_rank = rank_idx / layout.tp_size;
    rank->tp_rank = rank_idx % layout.tp_size;
    rank->device =
        std::make_unique<Device>(ThreadPoolOptions{.num_threads = options_.num_threads, .spin_microseconds = 0});
    const ModelSettings settings{.compute_dtype = options_.compute_dtype,
                                 .isa = options_.isa,
                                 .activation_dtype = options_.activation_dtype,
                                 .tp_rank = rank->tp_rank,
                                 .tp_size = layout.tp_size,
                                 .expert_parallel = layout.expert_parallel,
                                 .ep_rank = layout.expert_parallel ? rank_idx : 0,
                                 .ep_size = layout.expert_parallel ? layout.num_ranks() : 1,
                                 .placement = placement,
                                 .num_move_buffers = options_.num_move_buffers,
                                 .exchange_max_bytes = options_.exchange_max_bytes,
                                 .max_rows = options_.max_rows,
                                 .max_logit_rows = 64,
                                 .max_positions = 4096};
    Mesh& mesh = *meshes_[static_cast<size_t>(rank_idx)];
    std::vector<int> replica(static_cast<size_t>(layout.tp_size)), experts{rank_idx};
    std::iota(replica.begin(), replica.end(), rank->dp_rank * layout.tp_size);
    auto group = make_message_group(
        mesh, {.members = std::move(replica), .max_reduced_bytes = max_reduced_bytes(config(), settings)});
    ASSERT_TRUE(group) << group.error().message;
    rank->group = std::move(*group);
    if (config().num_experts > 0) {
      if (layout.expert_parallel) {
        experts.resize(static_cast<size_t>(layout.num_ranks()));
        std::iota(experts.begin(), experts.end(), 0);
      }
      auto exchange =
          ExpertExchange::create(mesh, std::move(experts), exchange_layout(config(), settings), options_.nodes);
      ASSERT_TRUE(exchange) << exchange.error().message;
      rank->exchange = std::move(*exchange);
    }
    auto model =
        DeepseekModel::load(config(), settings, *files_, *rank->device, *rank->group, rank->exchange.get(), {});
    ASSERT_TRUE(model) << model.error().message;
    rank->model = std::move(*model);
    const int64_t num_slots = 4096;
    auto memory = Device::allocate(KvCache::bytes(config(), options_.compute_dtype, num_slots));
    ASSERT_TRUE(memory) << memory.error().message;
    rank->cache_memory = std::move(*memory);
    rank->cache = KvCache(config(), options_.compute_dtype, rank->cache_memory.data(), num_slots);
    ranks_.push_back(std::move(rank));
  }
}

ModelRun::~ModelRun() = default;

Result<int64_t> ModelRun::move_to(const SharedPlacement& next, bool from_ranks, const WeightCatalog& files) {
  std::vector<std::unique_ptr<Neighbours>> neighbours;
  std::vector<ExpertSlots> slots;
  for (const auto& rank : ranks_) slots.emplace_back(*rank->model, rank->exchange->placement());
  std::vector<std::unique_ptr<ExpertMover>> movers;
  std::vector<Neighbours::Word> words;
  for (const auto& rank : ranks_)
    words.push_back(neighbours.emplace_back(std::make_unique<Neighbours>(rank->model->weights(), 0))->word());
  for (size_t rank = 0; rank < ranks_.size(); rank++) {
    if (from_ranks) neighbours[rank]->meet(words, {}, static_cast<int>(rank));
    movers.push_back(std::make_unique<ExpertMover>(slots[rank], *ranks_[rank]->exchange, files, *neighbours[rank],
                                                   std::vector<int>()));
    movers.back()->start(next);
  }
  int64_t from_files = 0;
  for (const auto& mover : movers) {
    while (mover->progress() == ExpertMover::Progress::kGoesOn)
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    if (mover->progress() == ExpertMover::Progress::kFailed) return std::unexpected(mover->error());
  }
  for (const auto& mover : movers) from_files += mover->apply().from_files;
  return from_files;
}

int ModelRun::num_moe_layers() const {
  int count = 0;
  for (int layer = 0; layer < config().num_layers; layer++) count += config().is_moe_layer(layer);
  return count;
}

const ExpertExchange& ModelRun::exchange(int rank) const {
  return *ranks_[static_cast<size_t>(rank)]->exchange;
}

RunResult ModelRun::logits(const std::vector<TokenId>& tokens, const std::vector<int32_t>& forced_expert_ids,
                           const std::vector<int32_t>& forced_positions) {
  return std::move(run({{tokens, options_.generated_from, forced_expert_ids, forced_positions}})[0]);
}

std::vector<int> ModelRun::rows_of_steps(const ReplicaInput& input) const {
  const auto num_tokens = static_cast<int>(input.tokens.size());
  const int num_prompt = input.generated_from < 0 ? num_tokens : std::min(input.generated_from, num_tokens);
  const int chunk = options_.chunk > 0 ? options_.chunk : options_.max_rows;
  std::vector<int> rows;
  for (int position = 0; position < num_tokens; position += rows.back())
    rows.push_back(position < num_prompt ? std::min(chunk, num_prompt - position) : 1);
  return rows;
}

std::vector<RunResult> ModelRun::run(const std::vector<ReplicaInput>& inputs) {
  size_t num_steps = 0;
  for (const ReplicaInput& input : inputs) num_steps = std::max(num_steps, rows_of_steps(input).size());
  std::vector<RunResult> results(ranks_.size());
  std::vector<std::thread> threads;
  std::mutex mutex;
  for (size_t rank_idx = 0; rank_idx < ranks_.size(); rank_idx++) {
    threads.emplace_back([&, rank_idx] {
      const auto dp_rank = static_cast<size_t>(ranks_[rank_idx]->dp_rank);
      const ReplicaInput idle;
      const Status status =
          run_rank(*ranks_[rank_idx], dp_rank < inputs.size() ? inputs[dp_rank] : idle, num_steps, results[rank_idx]);
      if (status) return;
      const std::lock_guard lock(mutex);
      ADD_FAILURE() << "rank " << rank_idx << ": " << status.error().message;
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::vector<RunResult> of_replicas;
  for (size_t idx = 0; idx < results.size(); idx++) {
    if (ranks_[idx]->tp_rank == 0) {
      of_replicas.push_back(std::move(results[idx]));
      continue;
    }
    if (results[idx].chosen_positions != of_replicas.back().chosen_positions)
      ADD_FAILURE() << "rank " << idx << " chose other positions than its leader";
    // Each rank reports the choice of experts for its own rows.
    for (size_t slot = 0; slot < results[idx].chosen_expert_ids.size(); slot++) {
      if (const int32_t expert = results[idx].chosen_expert_ids[slot]; expert >= 0)
        of_replicas.back().chosen_expert_ids[slot] = expert;
    }
  }
  return of_replicas;
}

Status ModelRun::run_rank(Rank& rank, const ReplicaInput& input, size_t num_steps, RunResult& result) {
  const auto num_tokens = static_cast<int>(input.tokens.size());
  const int top_k = std::max(config().num_experts_per_token, 1);
  result.logits.resize(static_cast<size_t>(num_tokens) * static_cast<size_t>(config().vocab_size));
  result.chosen_expert_ids.assign(static_cast<size_t>(num_moe_layers() * num_tokens * top_k), -1);
  const int num_layers = config().num_layers, topk = config().indexer ? config().indexer->topk : 0;
  result.chosen_positions.assign(static_cast<size_t>(num_layers * num_tokens * topk), -2);
  if (num_tokens > 0) {
    RETURN_IF_ERROR(compute_logits(
        *rank.model, rank.cache, kBlockSize,
        {.tokens = input.tokens,
         .generated_from = input.generated_from,
         .chunk = options_.chunk,
         .forced_expert_ids =
             input.forced_expert_ids.empty()
                 ? View<const int32_t, 3>()
                 : View<const int32_t, 3>(input.forced_expert_ids.data(), num_moe_layers(), num_tokens, top_k),
         .chosen_expert_ids = View<int32_t, 3>(result.chosen_expert_ids.data(), num_moe_layers(), num_tokens, top_k),
         .forced_positions = input.forced_positions.empty()
                                 ? View<const int32_t, 3>()
                                 : View<const int32_t, 3>(input.forced_positions.data(), num_layers, num_tokens, topk),
         .chosen_positions = View<int32_t, 3>(result.chosen_positions.data(), num_layers, num_tokens, topk)},
        View<float, 2>(result.logits.data(), num_tokens, config().vocab_size)));
  }
  // An idle replica takes every step with zero rows.
  for (size_t step = rows_of_steps(input).size(); step < num_steps; step++) {
    StepBatch layout(1, kBlockSize);
    RETURN_IF_ERROR(rank.model->forward(layout.build(step), rank.cache));
  }
  return {};
}

bool same_bits(const std::vector<float>& left, const std::vector<float>& right) {
  return left.size() == right.size() &&
         (left.empty() || std::memcmp(left.data(), right.data(), left.size() * sizeof(float)) == 0);
}

std::vector<IsaLevel> available_levels() {
  std::vector<IsaLevel> levels;
  for (const IsaLevel level : {IsaLevel::kReference, IsaLevel::kAvx2, IsaLevel::kAvx512}) {
    if (level <= detect_isa()) levels.push_back(level);
  }
  return levels;
}

}  // namespace cachalot::test
