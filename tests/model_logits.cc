#include "model_logits.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "base/math.h"
#include "engine/round.h"

namespace cachalot {
namespace {

// Logits of all rows of the last step, as many at a time as the model takes.
Status copy_logits(DeepseekModel& model, int num_rows, View<float, 2> logits) {
  std::vector<int32_t> row_ids(static_cast<size_t>(num_rows));
  std::iota(row_ids.begin(), row_ids.end(), 0);
  const auto limit = static_cast<int>(model.settings().max_logit_rows);
  for (int begin = 0; begin < num_rows; begin += limit) {
    const int count = std::min(limit, num_rows - begin);
    RETURN_IF_ERROR(model.logits(View<const int32_t, 1>(row_ids.data() + begin, count), logits.rows(begin, count)));
  }
  return {};
}

}  // namespace

Status compute_logits(DeepseekModel& model, const KvCache& cache, int block_size, const LogitsRequest& request,
                      View<float, 2> logits) {
  const auto num_tokens = static_cast<int>(request.tokens.size());
  const int num_prompt = request.generated_from < 0 ? num_tokens : std::min(request.generated_from, num_tokens);
  const auto max_rows = static_cast<int>(model.settings().max_rows);
  const int chunk = request.chunk > 0 ? std::min(request.chunk, max_rows) : max_rows;
  if (num_tokens > cache.num_slots() || num_tokens > model.settings().max_positions) {
    return make_parameter_error("--tokens", "{} tokens, and there is room for {}", num_tokens,
                                std::min(cache.num_slots(), model.settings().max_positions));
  }
  std::vector<BlockId> blocks(static_cast<size_t>(ceil_div(num_tokens, block_size)));
  std::iota(blocks.begin(), blocks.end(), 0);
  StepBatch layout(max_rows, block_size);
  uint64_t step = 0;
  for (int position = 0; position < num_tokens;) {
    const int count = position < num_prompt ? std::min(chunk, num_prompt - position) : 1;
    layout.clear();
    layout.add({.first_position = position,
                .num_tokens = count,
                .num_prompt_tokens = num_prompt,
                .tokens = request.tokens.subspan(static_cast<size_t>(position), static_cast<size_t>(count)),
                .blocks = blocks});
    ModelBatch batch = layout.build(step++);
    if (!request.forced_expert_ids.empty())
      batch.forced_expert_ids = request.forced_expert_ids.slice(1, position, count);
    if (!request.chosen_expert_ids.empty())
      batch.chosen_expert_ids = request.chosen_expert_ids.slice(1, position, count);
    if (!request.forced_positions.empty()) batch.forced_positions = request.forced_positions.slice(1, position, count);
    if (!request.chosen_positions.empty()) batch.chosen_positions = request.chosen_positions.slice(1, position, count);
    RETURN_IF_ERROR(model.forward(batch, cache));
    RETURN_IF_ERROR(copy_logits(model, count, logits.rows(position, count)));
    position += count;
  }
  return {};
}

}  // namespace cachalot
