#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "placement/expert_placement.h"

// Ranks that are lost, and what becomes of the experts that they held.
namespace cachalot {

// How many empty slots each rank keeps in each layer, so that the experts of any num_lost of num_ranks find a place on
// the others: whatever ranks die, what is left holds every expert.
int spare_slots_to_survive(int num_experts, int num_ranks, int num_lost);

// An expert that no living rank holds, and the slot of a living one that is to be filled from the files.
struct LostExpert {
  int layer = 0;
  int32_t expert = 0;
  int rank = 0, slot = 0;  // the slot: of the rank
  bool operator==(const LostExpert&) const = default;
};

struct AfterLoss {
  // Of as many ranks; those that are lost have no slots. It holds once all of `to_load` is there: experts with a living
  // copy lie where they lay. None: something is missing.
  std::optional<ExpertPlacement> placement;
  std::vector<LostExpert> to_load;   // spread over the living
  std::vector<LostExpert> homeless;  // for which no slot is left; neither rank nor slot
  std::string text() const;          // for people: what was lost, and what becomes of it
};

// Of what the slots of the living hold, whatever that is, [rank][slot] of each layer; who is lost has no slots. Slots
// for experts that nobody holds are, in this order: empty ones; those of experts that have the most other copies. The
// error: an expert that is none, or is twice on a rank.
Result<AfterLoss> placement_of_held(const ExpertPlacement::Shape& shape, uint32_t version,
                                    std::vector<ExpertPlacement::Layer> held);
// Where all hold what a placement says: its next version.
AfterLoss placement_after_loss(const ExpertPlacement& placement, std::span<const int> lost_ranks);

}  // namespace cachalot
