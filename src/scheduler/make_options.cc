#include "scheduler/make_options.h"

namespace cachalot {

SchedulerOptions make_scheduler_options(const EngineOptions& options, int num_blocks, int max_model_len) {
  return {.max_num_batched_tokens = options.max_num_batched_tokens,
          .max_num_seqs = options.max_num_seqs,
          .max_model_len = max_model_len,
          .num_scheduler_steps = options.num_scheduler_steps,
          .policy = options.scheduling_policy,
          .cache = {.num_blocks = num_blocks,
                    .block_size = options.block_size,
                    .enabled = options.enable_prefix_caching,
                    .across_roles = options.prefix_cache_across_roles,
                    .hash_key = random_block_hash_key()}};
}

}  // namespace cachalot
