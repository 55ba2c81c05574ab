#include "engine/participate.h"

#include <algorithm>
#include <exception>
#include <numeric>
#include <vector>

#include "base/math.h"

namespace cachalot {
namespace {

// Memory that is not to be had ends the rank with a reason that the others hear, and not its process without one.
template <class Body>
Status without_throwing(Body body) {
  try {
    return body();
  } catch (const std::exception& exception) {
    return make_error(ErrorCode::kInternal, "a round failed: {}", exception.what());
  }
}

}  // namespace

Status enter_first_epoch(RankEngine& engine, Epochs& epochs, const RoundObserver& after_round) {
  Error why{ErrorCode::kUnavailable, "it has loaded", {}};
  for (;;) {
    RETURN_IF_ERROR(engine.enter_next(epochs, why));
    if (engine.serves()) return {};
    const Status ended = take_part_idle(engine, after_round);
    if (ended) return make_error(ErrorCode::kCancelled, "the group ended before this rank's replica was whole");
    if (!ends_epoch(ended.error())) return ended;
    why = ended.error();
  }
}

Status follow_leader(RankEngine& engine, const RoundObserver& after_round, Epochs* epochs) {
  const auto follow = [&]() -> Status {
    for (;;) {
      ASSIGN_OR_RETURN(const Round* round, engine.lockstep().next_round());
      if (round->leave) return {};
      RETURN_IF_ERROR(engine.follow(*round));
      after_round(engine);
    }
  };
  return without_throwing([&]() -> Status {
    for (;;) {
      const Status ended = engine.serves() ? follow() : take_part_idle(engine, after_round);
      if (ended || !epochs || !ends_epoch(ended.error())) return ended;
      RETURN_IF_ERROR(engine.enter_next(*epochs, ended.error()));
    }
  });
}

Status take_part_idle(RankEngine& engine, const RoundObserver& after_round) {
  return without_throwing([&]() -> Status {
    for (;;) {
      if (!engine.lockstep().wants_to_end_epoch()) {
        ASSIGN_OR_RETURN(const bool called, engine.lockstep().wait_for_others());
        if (!called) continue;
      }
      ASSIGN_OR_RETURN(const Agreement agreement, engine.lockstep().agree({.leaving = true}));
      if (agreement.num_rows > 0) RETURN_IF_ERROR(engine.run(StepPlan{}, agreement.num_steps));
      after_round(engine);
      if (agreement.all_leave) return engine.dismiss();
    }
  });
}

Status compute_sequence_logits(RankEngine& leader, const SequenceLogitsRequest& request, View<float, 2> logits) {
  const auto num_tokens = static_cast<int>(request.tokens.size());
  const int num_prompt = request.generated_from < 0 ? num_tokens : std::min(request.generated_from, num_tokens);
  const auto max_rows = static_cast<int>(leader.model().settings().max_rows);
  const int64_t room = std::min(leader.cache().num_slots(), leader.model().settings().max_positions);
  if (num_tokens > room)
    return make_parameter_error("--tokens", "{} tokens, and there is room for {}", num_tokens, room);
  const int block_size = leader.memory().block_size;
  std::vector<BlockId> blocks(static_cast<size_t>(ceil_div(num_tokens, block_size)));
  std::iota(blocks.begin(), blocks.end(), 0);

  for (int position = 0; position < num_tokens;) {
    const int count = position < num_prompt ? std::min(max_rows, num_prompt - position) : 1;
    RETURN_IF_ERROR(leader.lockstep().agree({.num_rows = count}));
    RETURN_IF_ERROR(leader.run_for_logits(
        {.first_position = position,
         .num_tokens = count,
         .num_prompt_tokens = num_prompt,
         .tokens = request.tokens.subspan(static_cast<size_t>(position), static_cast<size_t>(count)),
         .blocks = blocks},
        logits.rows(position, count)));
    position += count;
  }
  return {};
}

Status leave_group(RankEngine& leader) {
  for (;;) {
    ASSIGN_OR_RETURN(const Agreement agreement, leader.lockstep().agree({.leaving = true}));
    if (agreement.all_leave) return leader.dismiss();
    if (agreement.num_rows > 0) RETURN_IF_ERROR(leader.run(StepPlan{}, agreement.num_steps));
  }
}

}  // namespace cachalot
