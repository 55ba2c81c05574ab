#include "engine/participate.h"

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

Status follow_leader(RankEngine& engine, const RoundObserver& after_round) {
  return without_throwing([&]() -> Status {
    for (;;) {
      ASSIGN_OR_RETURN(const Round* round, engine.lockstep().next_round());
      if (round->leave) return {};
      RETURN_IF_ERROR(engine.follow(*round));
      after_round(engine);
    }
  });
}

Status take_part_idle(RankEngine& engine, const RoundObserver& after_round) {
  return without_throwing([&]() -> Status {
    for (;;) {
      ASSIGN_OR_RETURN(const bool called, engine.lockstep().wait_for_others());
      if (!called) continue;
      ASSIGN_OR_RETURN(const Agreement agreement, engine.lockstep().agree({.leaving = true}));
      if (agreement.num_rows > 0) RETURN_IF_ERROR(engine.run(StepPlan{}, agreement.num_steps));
      after_round(engine);
      if (agreement.all_leave) return engine.dismiss();
    }
  });
}

}  // namespace cachalot
