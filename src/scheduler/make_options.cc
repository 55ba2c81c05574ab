#include "scheduler/make_options.h"

#include <random>

namespace cachalot {

SchedulerOptions make_scheduler_options(const EngineOptions& options, int num_blocks, int max_model_len) {
  std::random_device random;
  return {.max_num_batched_tokens = options.max_num_batched_tokens,
          .max_num_seqs = options.max_num_seqs,
          .max_model_len = max_model_len,
          .num_scheduler_steps = options.num_scheduler_steps,
          .policy = options.scheduling_policy,
          .cache = {.num_blocks = num_blocks,
                    .block_size = options.block_size,
                    .enabled = options.enable_prefix_caching,
                    .across_roles = options.prefix_cache_across_roles,
                    .hash_seed = uint64_t{random()} << 32 | random()}};
}

}  // namespace cachalot
