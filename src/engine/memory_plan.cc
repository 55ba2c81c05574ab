#include "engine/memory_plan.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/check.h"
#include "base/math.h"

namespace cachalot {
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
      "shared memory {}, KV cache {} ({} blocks of {} tokens{}, {} bytes a token), rotary tables {}, scratch {}",
      mib(device_bytes), mib(node.total_bytes), node.source, mib(usable_bytes), mib(rank.model.weight_bytes),
      mib(rank.model.workspace_bytes), mib(rank.logits_bytes), mib(rank.model.comm_bytes()), mib(rank.shared_bytes),
      mib(cache_bytes), num_blocks, block_size,
      num_own_blocks > num_blocks ? fmt::format(" of {} that fit here", num_own_blocks) : "",
      rank.model.cache_bytes_per_token, mib(rank.model.rope_bytes), mib(rank.model.scratch_bytes));
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

}  // namespace cachalot
