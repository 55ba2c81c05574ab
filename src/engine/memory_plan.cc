#include "engine/memory_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <numeric>
#include <utility>
#include <vector>

#include "base/file.h"
#include "base/math.h"
#include "comm/group.h"
#include "comm/shm/segment.h"
#include "model/mla.h"
#include "placement/balance.h"
#include "placement/loss.h"
#include "placement/moves.h"
#include "sampler/sampler.h"

namespace cachalot {
namespace {

constexpr int64_t kMaxLogitRows = 256;  // at a time; they bound the memory of prompt logprobs

// Without replicas to share them with, a replica's ranks still share whole experts out if that is asked for.
bool spreads_experts(const ParallelOptions& parallel) {
  return parallel.enable_expert_parallel || parallel.tensor_parallel_size == 1;
}

ModelSettings settings_of(const EngineOptions& options, const ParallelOptions& parallel, const ModelConfig& config,
                          SharedPlacement placement) {
  const bool spread_experts = spreads_experts(parallel);
  const bool moves = parallel.eplb.enabled && placement && placement->shape().num_ranks > 1;
  const int num_buffers = moves ? num_move_buffers(*placement) : 0;
  return {.compute_dtype = options.dtype == DTypeOption::kFloat32 ? DType::kF32 : DType::kBF16,
          .activation_dtype = options.activation_dtype,
          .tp_rank = parallel.tensor_parallel_rank,
          .tp_size = parallel.tensor_parallel_size,
          .expert_parallel = spread_experts,
          .ep_rank = spread_experts ? parallel.group_rank() : 0,
          .ep_size = spread_experts ? parallel.group_size() : 1,
          .placement = std::move(placement),
          .num_move_buffers = num_buffers,
          .exchange_max_bytes = static_cast<int64_t>(parallel.exchange_max_bytes),
          .max_rows = options.max_num_batched_tokens,
          .max_logit_rows = std::min<int64_t>(kMaxLogitRows, std::max(options.max_num_seqs, 16)),
          .max_positions = options.max_model_len > 0 ? options.max_model_len : config.max_position_embeddings};
}

size_t shared_memory_bytes(const ParallelOptions& parallel, int num_local_ranks) {
  const int num_peers = std::min(num_local_ranks, parallel.group_size()) - 1;
  if (num_peers == 0 || parallel.transports == "ucx") return 0;
  return SegmentLayout::of_node(num_peers).size();
}

// With the flag that asked for it before its error.
template <class T>
Result<T> named(const char* flag, Result<T> result) {
  if (result) return result;
  return make_parameter_error(flag, "{}: {}", flag, result.error().message);
}

Result<ExpertPlacement> read_placement(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, read_file(path, kMostTableBytes));
  return ExpertPlacement::parse(text, path);
}

Result<ExpertLoad> read_load(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, read_file(path, kMostTableBytes));
  return ExpertLoad::parse(text, path);
}

}  // namespace

namespace {

const char* const kNotPlaced = "experts are placed with --enable-expert-parallel; else each rank has a part of all";

}  // namespace

std::vector<Survival> survival_choices(const ParallelOptions& parallel, const ModelConfig& config) {
  std::vector<Survival> choices;
  for (const Survive what : {Survive::kServer, Survive::kRank})
    if (const auto survival = survival_of(what, parallel, config, 1); survival && parallel.expert_placement.empty())
      choices.push_back(*survival);
  return choices;
}

Result<Survival> survival_of(Survive what, const ParallelOptions& parallel, const ModelConfig& config,
                             int ranks_of_node) {
  if (what == Survive::kAuto || what == Survive::kNone) return Survival{};
  const int num_ranks = parallel.group_size();
  const int num_lost = what == Survive::kRank     ? 1
                       : what == Survive::kServer ? parallel.tensor_parallel_size
                                                  : ranks_of_node;
  if (!parallel.enable_expert_parallel || config.num_experts == 0)
    return make_parameter_error("--survive", "--survive {}: {}", survive_name(what),
                                config.num_experts == 0 ? "the model has no experts" : kNotPlaced);
  if (num_lost >= num_ranks)
    return make_parameter_error("--survive", "--survive {}: the group has {} ranks, and none would be left",
                                survive_name(what), num_ranks);
  return Survival{what, num_lost, spare_slots_to_survive(config.num_experts, num_ranks, num_lost)};
}

BalanceOptions balance_options(const ParallelOptions& parallel, const ModelConfig& config, int num_nodes) {
  const bool by_groups = config.topk_method != TopkMethod::kGreedy;
  return {.num_ranks = spreads_experts(parallel) ? parallel.group_size() : 1,
          .num_redundant = parallel.eplb.num_redundant_experts,
          .num_nodes = num_nodes,
          .num_groups = by_groups ? config.num_groups : 1};
}

Result<SharedPlacement> plan_placement(const ParallelOptions& parallel, const ModelConfig& config, int num_nodes,
                                       int num_spare) {
  const auto shared = [&](ExpertPlacement placement) -> Result<SharedPlacement> {
    if (num_spare > 0) {
      ASSIGN_OR_RETURN(placement, with_spare_slots(placement, num_spare));
    }
    return std::make_shared<const ExpertPlacement>(std::move(placement));
  };
  const bool by_file = !parallel.expert_placement.empty(), by_load = !parallel.expert_load.empty();
  const int num_ranks = spreads_experts(parallel) ? parallel.group_size() : 1;
  const ExpertPlacement::Shape shape = placement_shape(config, num_ranks);
  const bool has_experts = config.num_experts > 0 && shape.num_layers > 0;
  if (has_experts && num_ranks > ExpertPlacement::kMostSlots)
    return make_parameter_error(
        "--data-parallel-size", "experts on {} ranks (--data-parallel-size {}, -t {}): at most {}", num_ranks,
        parallel.data_parallel_size, parallel.tensor_parallel_size, ExpertPlacement::kMostSlots);
  const EplbOptions& eplb = parallel.eplb;
  const bool has_copies = eplb.num_redundant_experts > 0;
  if (!by_file && !by_load && !has_copies && !eplb.enabled && !eplb.log_balancedness)
    return has_experts ? shared(even_placement(shape)) : even_placement(config, num_ranks);
  const char* const flag = by_file        ? "--expert-placement"
                           : by_load      ? "--expert-load"
                           : eplb.enabled ? "--enable-eplb"
                                          : "--eplb-config";
  if (!parallel.enable_expert_parallel || !has_experts)
    return make_parameter_error(flag, "{}: {}", flag, !has_experts ? "the model has no experts" : kNotPlaced);
  if (by_file && (by_load || has_copies))
    return make_parameter_error(flag, "{}: a placement says all; --expert-load and --eplb-config make another", flag);
  if (by_file) {
    ASSIGN_OR_RETURN(ExpertPlacement placement, named(flag, read_placement(parallel.expert_placement)));
    if (placement.shape() != shape)
      return make_parameter_error(
          flag, "{} {}: {} layers with {} experts on {} ranks; the model and layout have {} with {} on {}", flag,
          parallel.expert_placement, placement.shape().num_layers, placement.shape().num_experts,
          placement.shape().num_ranks, shape.num_layers, shape.num_experts, shape.num_ranks);
    return shared(std::move(placement));
  }
  if (!by_load && !has_copies) return shared(even_placement(shape));
  ExpertLoad load = ExpertLoad::uniform(shape.num_layers, shape.num_experts);
  if (by_load) {
    ASSIGN_OR_RETURN(ExpertLoad recorded, named(flag, read_load(parallel.expert_load)));
    if (const Status added = load.add(recorded); !added)
      return make_parameter_error(flag, "{} {}: {}", flag, parallel.expert_load, added.error().message);
    load = std::move(recorded);
  }
  const BalanceOptions balance = balance_options(parallel, config, num_nodes);
  ASSIGN_OR_RETURN(ExpertPlacement placement, named(flag, balanced_placement(load, balance, 1)));
  return shared(std::move(placement));
}

size_t RankMemory::fixed_bytes() const {
  return model.weight_bytes + model.workspace_bytes + model.scratch_bytes + model.rope_bytes + model.comm_bytes() +
         logits_bytes + shared_bytes;
}

Result<RankMemory> plan_rank_memory(const EngineOptions& options, const ParallelOptions& parallel,
                                    const ModelConfig& config, const WeightCatalog& catalog,
                                    const RankResources& resources) {
  if (options.max_model_len > config.max_position_embeddings) {
    return make_parameter_error("--max-model-len", "--max-model-len {}: the model has max_position_embeddings {} ({})",
                                options.max_model_len, config.max_position_embeddings, catalog.name());
  }
  SharedPlacement placement = resources.placement;
  if (!placement) {
    ASSIGN_OR_RETURN(placement, plan_placement(parallel, config, 1));
  }
  RankMemory memory{.settings = settings_of(options, parallel, config, std::move(placement))};
  memory.settings.isa = resources.isa;
  ASSIGN_OR_RETURN(memory.model, DeepseekModel::plan(config, memory.settings, catalog, resources.num_threads));
  memory.logits_bytes = static_cast<size_t>(memory.settings.max_logit_rows * config.vocab_size) * sizeof(float);
  memory.shared_bytes = shared_memory_bytes(parallel, resources.num_local_ranks);
  return memory;
}

namespace {

// Blocks beyond what running sequences can hold are worth keeping for prefixes, up to so many tokens.
constexpr int64_t kPrefixCacheTokens = int64_t{1} << 20;

std::string mib(size_t bytes) {
  return fmt::format("{:.1f} MiB", static_cast<double>(bytes) / (1 << 20));
}

}  // namespace

std::string MemoryPlan::describe() const {
  return fmt::format(
      "memory of this rank: {} of {} ({}), {} usable: weights {}, workspace {}, logits {}, buffers between ranks {}, "
      "shared memory {}, KV cache {} ({} blocks of {} tokens{}, {}), rotary tables {}, scratch {}",
      mib(device_bytes), mib(node.total_bytes), node.source, mib(usable_bytes), mib(rank.model.weight_bytes),
      mib(rank.model.workspace_bytes), mib(rank.logits_bytes), mib(rank.model.comm_bytes()), mib(rank.shared_bytes),
      mib(cache_bytes), num_blocks, block_size,
      num_own_blocks > num_blocks ? fmt::format(" of {} that fit here", num_own_blocks) : "",
      cache_bytes_text(rank.model.cache_bytes), mib(rank.model.rope_bytes), mib(rank.model.scratch_bytes));
}

void MemoryPlan::cut_to(int common_blocks, int common_model_len) {
  CHECK(common_blocks > 0 && common_blocks <= num_blocks && common_model_len > 0 && common_model_len <= max_model_len,
        "{} blocks for {} tokens, agreed are {} for {}", num_blocks, max_model_len, common_blocks, common_model_len);
  max_model_len_was_cut |= common_model_len < max_model_len;
  num_blocks = common_blocks;
  max_model_len = common_model_len;
  cache_bytes = static_cast<size_t>(num_blocks) * rank.block_bytes(block_size);
}

Result<MemoryPlan> plan_memory(const EngineOptions& options, const ModelConfig& config, const RankMemory& rank,
                               const MemoryInfo& node, int num_local_ranks) {
  MemoryPlan plan{.node = node, .rank = rank, .block_size = options.block_size};
  plan.device_bytes = node.total_bytes / static_cast<size_t>(num_local_ranks);
  plan.usable_bytes = static_cast<size_t>(static_cast<double>(plan.device_bytes) * options.gpu_memory_utilization);
  const size_t fixed = rank.fixed_bytes(), block_bytes = rank.block_bytes(options.block_size);
  const int64_t wanted_len = options.max_model_len > 0 ? options.max_model_len : config.max_position_embeddings;
  const auto blocks_of = [&](int64_t tokens) { return ceil_div(tokens, options.block_size); };

  int64_t num_blocks = options.num_gpu_blocks_override;
  if (num_blocks == 0 && options.kv_cache_memory_bytes > 0) {
    const auto wanted = static_cast<size_t>(options.kv_cache_memory_bytes);
    const size_t most = plan.device_bytes - std::min(fixed, plan.device_bytes);
    if (wanted < block_bytes || wanted > most)
      return std::unexpected(Error{
          ErrorCode::kOutOfMemory,
          fmt::format("--kv-cache-memory-bytes {}: one KV block takes {} bytes, and {} are there beside the model",
                      wanted, block_bytes, most),
          "--kv-cache-memory-bytes"});
    num_blocks = static_cast<int64_t>(wanted / block_bytes);
  }
  if (num_blocks == 0) {
    if (fixed + block_bytes > plan.usable_bytes) {
      return make_error(ErrorCode::kOutOfMemory,
                        "the model does not fit: weights {}, workspace {}, logits {}, buffers between ranks {}, shared "
                        "memory {}, scratch {}, rotary tables {} and one KV block of {} are {} more than the {} that "
                        "--gpu-memory-utilization {} leaves of {}; more ranks (--tensor-parallel-size, "
                        "--data-parallel-size with --enable-expert-parallel), "
                        "a smaller --max-num-batched-tokens or int4 weights would help",
                        mib(rank.model.weight_bytes), mib(rank.model.workspace_bytes), mib(rank.logits_bytes),
                        mib(rank.model.comm_bytes()), mib(rank.shared_bytes), mib(rank.model.scratch_bytes),
                        mib(rank.model.rope_bytes), mib(block_bytes), mib(fixed + block_bytes - plan.usable_bytes),
                        mib(plan.usable_bytes), options.gpu_memory_utilization, mib(plan.device_bytes));
    }
    const int64_t useful = int64_t{options.max_num_seqs} * blocks_of(wanted_len) + blocks_of(kPrefixCacheTokens);
    num_blocks = std::min(static_cast<int64_t>((plan.usable_bytes - fixed) / block_bytes), useful);
  }
  plan.num_own_blocks = plan.num_blocks = static_cast<int>(std::min<int64_t>(num_blocks, INT32_MAX));
  plan.cache_bytes = static_cast<size_t>(num_blocks) * block_bytes;
  const int64_t longest = num_blocks * options.block_size;
  if (wanted_len > longest && options.max_model_len > 0) {
    return std::unexpected(Error{
        ErrorCode::kOutOfMemory,
        fmt::format(
            "--max-model-len {} needs {} KV blocks of {} tokens and there is memory for {} ({}): at most {} tokens fit",
            wanted_len, blocks_of(wanted_len), options.block_size, num_blocks, mib(plan.cache_bytes), longest),
        "--max-model-len"});
  }
  plan.max_model_len = static_cast<int>(std::min(wanted_len, longest));
  plan.max_model_len_was_cut = plan.max_model_len < wanted_len;
  return plan;
}

size_t bytes_of_slots(const RankMemory& rank, double num_slots) {
  const ModelSettings& settings = rank.settings;
  if (!settings.placement) return 0;
  const auto all = static_cast<double>(settings.placement->num_slots(settings.ep_rank) + settings.num_move_buffers);
  const auto bytes = static_cast<double>(rank.model.weights_by_kind[static_cast<size_t>(WeightKind::kExperts)]);
  return all > 0 ? static_cast<size_t>(bytes * num_slots / all) : 0;
}

Survival affordable_survival(const EngineOptions& options, const ParallelOptions& parallel, const ModelConfig& config,
                             const RankMemory& rank, const MemoryInfo& node, int num_local_ranks) {
  constexpr int kTenths = 9;
  const auto without = plan_memory(options, config, rank, node, num_local_ranks);
  for (const Survival& survival : survival_choices(parallel, config)) {
    RankMemory more = rank;
    more.model.weight_bytes +=
        bytes_of_slots(rank, static_cast<double>(rank.settings.placement->shape().num_layers) * survival.num_spare);
    const auto with = plan_memory(options, config, more, node, num_local_ranks);
    if (without && with && with->num_blocks * int64_t{10} >= without->num_blocks * int64_t{kTenths} &&
        more.fixed_bytes() + with->cache_bytes <= with->usable_bytes)
      return survival;
  }
  return {};
}

std::string moving_text(const Survival& survival, const MemoryPlan& plan) {
  const ModelSettings& settings = plan.rank.settings;
  if (!settings.placement || settings.placement->shape().num_ranks == 1) return "";
  const auto price = [&](int64_t num_slots) {
    const size_t bytes = bytes_of_slots(plan.rank, static_cast<double>(num_slots));
    return fmt::format("{}, {} KV blocks beside {}", mib(bytes), bytes / plan.rank.block_bytes(plan.block_size),
                       plan.num_blocks);
  };
  std::string text =
      survival.num_lost == 0
          ? "experts survive no lost rank (--survive none)"
          : fmt::format("experts survive the loss of {} (--survive {}): {} spare slots a layer, {}",
                        survival.num_lost == 1 ? "any rank" : fmt::format("any {} ranks", survival.num_lost),
                        survive_name(survival.what), survival.num_spare,
                        price(int64_t{survival.num_spare} * settings.placement->shape().num_layers));
  if (settings.num_move_buffers > 0)
    text += fmt::format("; {} buffers to move experts through, {}", settings.num_move_buffers,
                        price(settings.num_move_buffers));
  return text;
}

namespace {

struct Alike {
  const char* name;
  int64_t RankNumbers::* number;
};
constexpr std::array<Alike, 17> kAlike{{
    {"tokens of a KV block (--block-size)", &RankNumbers::block_size},
    {"KV bytes of a token", &RankNumbers::cache_bytes_per_token},
    {"layers", &RankNumbers::num_layers},
    {"tokens of the vocabulary", &RankNumbers::vocab_size},
    {"token rows of a step (--max-num-batched-tokens)", &RankNumbers::max_rows},
    {"sequences at once (--max-num-seqs)", &RankNumbers::max_num_seqs},
    {"steps of a round (--num-scheduler-steps)", &RankNumbers::max_steps},
    {"rows of logits at a time", &RankNumbers::max_logit_rows},
    {"instruction level", &RankNumbers::isa_level},
    {"rows of a message to a rank's experts", &RankNumbers::expert_rows_per_peer},
    {"results of a message to a rank's experts", &RankNumbers::expert_pairs_per_peer},
    {"bytes of a row to experts", &RankNumbers::expert_row_bytes},
    {"bytes of a sum between ranks", &RankNumbers::reduced_bytes},
    {"arithmetic of rotary tables and draws (a hash)", &RankNumbers::arithmetic},
    {"version of the experts' placement", &RankNumbers::placement_version},
    {"the experts' placement (a hash)", &RankNumbers::placement_hash},
    {"program, files of the model and settings (a hash)", &RankNumbers::identity},
}};
static_assert(sizeof(RankNumbers) == (kAlike.size() + 4) * sizeof(int64_t), "a number is missing in the table");

Status find_difference(const RankNumbers& own, const RankNumbers& theirs, const std::string& own_name,
                       const std::string& their_name) {
  for (const auto& [name, number] : kAlike) {
    if (own.*number != theirs.*number)
      return make_error(ErrorCode::kInvalidArgument,
                        "{}: {} on {} and {} on {}; all ranks must run the same program with the same model and the "
                        "same settings",
                        name, own.*number, own_name, theirs.*number, their_name);
  }
  return {};
}

}  // namespace

int64_t arithmetic_hash(const ModelConfig& config) {
  portable::BitHash hash;
  hash.add(Rope::hash(config, config.max_position_embeddings));
  hash.add(hash_of_draws());
  return static_cast<int64_t>(hash.value() >> 11);
}

namespace {

// num_in_replica: of of_ranks, from first_in_replica on.
Result<CommonPlan> find_common_plan(std::span<const RankNumbers> of_ranks, size_t first_in_replica,
                                    size_t num_in_replica, std::span<const std::string> rank_names) {
  const RankNumbers& first = of_ranks.front();
  for (size_t rank = 0; rank < of_ranks.size(); rank++) {
    const RankNumbers& numbers = of_ranks[rank];
    if (numbers.format != RankNumbers::kFormat || numbers.num_blocks < 1 || numbers.max_model_len < 1)
      return make_error(ErrorCode::kCorrupt, "{} sent a plan of another format, or of {} KV blocks for {} tokens",
                        rank_names[rank], numbers.num_blocks, numbers.max_model_len);
    RETURN_IF_ERROR(find_difference(numbers, first, rank_names[rank], rank_names[0]));
  }
  // The least of some ranks' numbers, and whose it is where they differ.
  struct Least {
    int64_t number;
    std::string whose;
  };
  const auto least = [&](size_t begin, size_t count, int64_t RankNumbers::* number, std::string_view of_whom) {
    const auto [lowest, highest] = std::ranges::minmax_element(of_ranks.subspan(begin, count), {}, number);
    const auto rank = static_cast<size_t>(&*lowest - of_ranks.data());
    const bool differ = (*lowest).*number != (*highest).*number;
    return Least{(*lowest).*number, differ ? fmt::format(", the least of {} ({})", of_whom, rank_names[rank]) : ""};
  };
  const Least blocks = least(first_in_replica, num_in_replica, &RankNumbers::num_blocks, "the replica's"),
              length = least(0, of_ranks.size(), &RankNumbers::max_model_len, "all ranks'");
  return CommonPlan{.num_blocks = blocks.number,
                    .max_model_len = length.number,
                    .text = fmt::format("{} KV blocks{}, and max_model_len {}{}", blocks.number, blocks.whose,
                                        length.number, length.whose)};
}

}  // namespace

Result<CommonPlan> find_common_plan(std::span<const RankNumbers> of_ranks, const ParallelOptions& parallel,
                                    std::span<const std::string> rank_names) {
  return find_common_plan(of_ranks, static_cast<size_t>(parallel.group_rank() - parallel.tensor_parallel_rank),
                          static_cast<size_t>(parallel.tensor_parallel_size), rank_names);
}

namespace {

Status check_experts_alike(const RankStanding& one, const RankStanding& other) {
  if (one.numbers.expert_inputs == other.numbers.expert_inputs) return {};
  return make_error(ErrorCode::kUnsupported,
                    "experts take their rows otherwise on {} than on {}; --activation-dtype bf16, which quantizes no "
                    "rows, runs them as they are",
                    one.name, other.name);
}

// Of one that comes to ranks that stand by a plan.
Status check_newcomer(const RankStanding& newcomer, std::span<const RankStanding> living, int tp_size) {
  for (const RankStanding& standing : living) {
    if (!standing.stands) continue;
    RETURN_IF_ERROR(find_difference(newcomer.numbers, standing.numbers, newcomer.name, standing.name));
    RETURN_IF_ERROR(check_experts_alike(newcomer, standing));
    const bool same_replica = standing.rank / tp_size == newcomer.rank / tp_size;
    if (newcomer.numbers.max_model_len < standing.numbers.max_model_len ||
        (same_replica && newcomer.numbers.num_blocks < standing.numbers.num_blocks))
      return make_error(ErrorCode::kOutOfMemory,
                        "{} has memory for {} KV blocks and sequences of {} tokens; its group stands by {} and {}",
                        newcomer.name, newcomer.numbers.num_blocks, newcomer.numbers.max_model_len,
                        standing.numbers.num_blocks, standing.numbers.max_model_len);
  }
  return {};
}

}  // namespace

EpochPlan plan_of_epoch(std::span<const RankStanding> living, const ParallelOptions& own) {
  const int tp_size = own.tensor_parallel_size, replica = own.group_rank() / tp_size;
  const auto in_replica = [&](const RankStanding& rank) { return rank.rank / tp_size == replica; };
  const auto first = std::ranges::find_if(living, in_replica);
  const auto num_in_replica = std::ranges::count_if(living, in_replica);
  const auto standing = std::ranges::find_if(living, &RankStanding::stands);
  if (standing == living.end()) {
    std::vector<RankNumbers> numbers;
    std::vector<std::string> names;
    for (const RankStanding& rank : living) {
      if (const Status alike = check_experts_alike(rank, living.front()); !alike)
        return {.plan = std::unexpected(alike.error())};
      numbers.push_back(rank.numbers);
      names.push_back(rank.name);
    }
    return {.plan = find_common_plan(numbers, static_cast<size_t>(first - living.begin()),
                                     static_cast<size_t>(num_in_replica), names)};
  }
  CommonPlan plan{.num_blocks = INT64_MAX, .max_model_len = standing->numbers.max_model_len, .text = {}};
  bool replica_stands = false;
  for (const RankStanding& rank : living) {
    if (!rank.stands)
      if (const Status fits = check_newcomer(rank, living, tp_size); !fits)
        return {.plan = std::unexpected(fits.error()), .refused = rank.rank};
    if (!in_replica(rank) || (replica_stands && !rank.stands)) continue;
    if (rank.stands && !std::exchange(replica_stands, true)) plan.num_blocks = rank.numbers.num_blocks;
    plan.num_blocks = std::min(plan.num_blocks, rank.numbers.num_blocks);
  }
  plan.text = fmt::format("{} KV blocks, and max_model_len {} of the group", plan.num_blocks, plan.max_model_len);
  return {.plan = std::move(plan)};
}

namespace {

constexpr CollectiveSite kAgreement{.operation = "agreement on the memory plan"};

// The first layer whose experts take rows otherwise on some rank than on the first one.
Status find_experts_that_differ(Mesh& mesh, const std::vector<int>& all, const ModelMemory& memory,
                                std::span<const std::string> rank_names) {
  std::vector<int32_t> own = memory.expert_inputs;
  const size_t num_layers = own.size();
  own.insert(own.end(), memory.first_experts.begin(), memory.first_experts.end());
  ASSIGN_OR_RETURN(const std::vector<int32_t> of_ranks, gather_rows<int32_t>(mesh, all, own, kAgreement));
  const auto expert_of = [&](size_t rank, size_t layer) {
    const std::span numbers = std::span(of_ranks).subspan(rank * own.size(), own.size());
    return ExpertInput{numbers[num_layers + layer], numbers[layer], " on " + rank_names[rank]};
  };
  for (size_t layer = 0; layer < num_layers; layer++)
    for (size_t rank = 1; rank < rank_names.size(); rank++)
      if (const ExpertInput first = expert_of(0, layer), other = expert_of(rank, layer); first.group != other.group)
        return std::unexpected(experts_differ(static_cast<int>(layer), first, other));
  return make_error(ErrorCode::kInternal, "experts' inputs have other hashes and are alike");
}

}  // namespace

int64_t expert_inputs_hash(const ModelMemory& memory) {
  portable::BitHash hash;
  for (const int32_t input : memory.expert_inputs) hash.add(static_cast<uint64_t>(input));
  return static_cast<int64_t>(hash.value() >> 11);
}

Result<int64_t> least_of_all(Mesh& mesh, int64_t own) {
  ASSIGN_OR_RETURN(const std::vector<int64_t> of_ranks,
                   gather_rows<int64_t>(mesh, consecutive(0, mesh.size()), std::span(&own, 1), kAgreement));
  return std::ranges::min(of_ranks);
}

Result<CommonPlan> agree_on_plan(Mesh& mesh, const ParallelOptions& parallel, RankNumbers own,
                                 const ModelMemory& memory) {
  own.expert_inputs = expert_inputs_hash(memory);
  const std::vector<int> all = consecutive(0, mesh.size());
  std::vector<std::string> names;
  for (const int rank : all) names.push_back(mesh.rank_name(rank));
  ASSIGN_OR_RETURN(const std::vector<RankNumbers> of_ranks,
                   gather_rows<RankNumbers>(mesh, all, std::span(&own, 1), kAgreement));
  ASSIGN_OR_RETURN(CommonPlan common, find_common_plan(of_ranks, parallel, names));
  const auto is_alike = [&](const RankNumbers& numbers) { return numbers.expert_inputs == own.expert_inputs; };
  if (!std::ranges::all_of(of_ranks, is_alike)) RETURN_IF_ERROR(find_experts_that_differ(mesh, all, memory, names));
  return common;
}

}  // namespace cachalot
