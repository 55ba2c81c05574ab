#pragma once

#include <span>

#include "base/error.h"
#include "core/types.h"
#include "model/deepseek.h"

namespace cachalot {

// One sequence through one rank's model alone, with experts and positions forced or reported.
struct LogitsRequest {
  std::span<const TokenId> tokens;
  int generated_from = -1;  // tokens from here on have the role generated and come one a step; -1: none
  int chunk = 0;            // prompt tokens a step; 0: as many as the model takes
  // See ModelBatch; [num_moe_layers, num_tokens, top_k] of the whole sequence, or empty.
  View<const int32_t, 3> forced_expert_ids;
  View<int32_t, 3> chosen_expert_ids;
  View<const int32_t, 3> forced_positions;  // [num_layers, num_tokens, index_topk]
  View<int32_t, 3> chosen_positions;
};

// logits [num_tokens, vocab_size]. Uses the cache's first blocks, of block_size slots each.
Status compute_logits(DeepseekModel& model, const KvCache& cache, int block_size, const LogitsRequest& request,
                      View<float, 2> logits);

}  // namespace cachalot
