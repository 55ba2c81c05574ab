#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "placement/balance.h"
#include "placement/expert_placement.h"

// From one placement to the next, while the model runs by the first. A slot that rows may still go to is never written:
// what arrives on a rank goes to memory that no slot of the running placement uses, and the slot is exchanged for it
// when all ranks switch. Such memory is what the rank's spare slots, of all layers, have, and its buffers.
namespace cachalot {

// An expert that a rank has to bring into a slot.
struct ExpertMove {
  int layer = 0, slot = 0;  // of layers with experts; of the rank
  int32_t expert = 0;
  bool operator==(const ExpertMove&) const = default;
};
std::vector<ExpertMove> moves_of(const ExpertPlacement& now, const ExpertPlacement& next, int rank);
int64_t num_moves(const ExpertPlacement& now, const ExpertPlacement& next);  // of all ranks

// Buffers of an expert's size that each rank needs, so that all experts of a layer can be exchanged at once: none
// where there are as many spare slots.
int num_move_buffers(const ExpertPlacement& placement);

// As much of the way to `target` as there is memory for on every rank, in whole layers, those first of which the
// busiest ranks gain the most; nothing: this is it. The next version of `now`.
std::optional<ExpertPlacement> next_stage(const ExpertPlacement& now, const ExpertPlacement& target,
                                          const ExpertLoad& load, int num_buffers);

}  // namespace cachalot
