#include "engine/participate.h"

namespace cachalot {

Status follow_leader(RankEngine& engine, const RoundObserver& after_round) {
  for (;;) {
    ASSIGN_OR_RETURN(const Round* round, engine.lockstep().next_round());
    if (round->leave) return {};
    RETURN_IF_ERROR(engine.follow(*round));
    after_round(engine);
  }
}

Status take_part_idle(RankEngine& engine, const RoundObserver& after_round) {
  for (;;) {
    ASSIGN_OR_RETURN(const bool called, engine.lockstep().wait_for_others());
    if (!called) continue;
    ASSIGN_OR_RETURN(const Agreement agreement, engine.lockstep().agree({.leaving = true}));
    if (agreement.num_rows > 0) RETURN_IF_ERROR(engine.run(StepPlan{}, agreement.num_steps));
    after_round(engine);
    if (agreement.all_leave) return engine.dismiss();
  }
}

}  // namespace cachalot
