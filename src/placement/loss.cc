#include "placement/loss.h"

#include <fmt/format.h>

#include <utility>

#include "base/math.h"

namespace cachalot {
namespace {

using Layer = ExpertPlacement::Layer;

// One layer after the other; how much each rank is to load is kept level over all of them.
class Rehousing {
 public:
  Rehousing(const ExpertPlacement& placement, std::span<const int> lost_ranks)
      : placement_(placement), is_lost_(static_cast<size_t>(placement.shape().num_ranks)), num_loads_(is_lost_.size()) {
    for (const int rank : lost_ranks) is_lost_[static_cast<size_t>(rank)] = true;
  }

  Layer layer(int layer_idx, AfterLoss& after) {
    Layer ranks(is_lost_.size());
    copies_.assign(static_cast<size_t>(placement_.shape().num_experts), 0);
    for (size_t rank = 0; rank < ranks.size(); rank++) {
      if (is_lost_[rank]) continue;
      const std::span<const int32_t> slots = placement_.slots(layer_idx, static_cast<int>(rank));
      ranks[rank].assign(slots.begin(), slots.end());
      for (const int32_t expert : slots)
        if (expert != ExpertPlacement::kSpare) copies_[static_cast<size_t>(expert)]++;
    }
    for (size_t expert = 0; expert < copies_.size(); expert++) {
      if (copies_[expert] > 0) continue;
      const auto id = static_cast<int32_t>(expert);
      const std::optional<Slot> slot = best_slot(ranks);
      if (!slot) {
        after.homeless.push_back({.layer = layer_idx, .expert = id});
        continue;
      }
      int32_t& held = ranks[slot->rank][slot->idx];
      if (held != ExpertPlacement::kSpare) copies_[static_cast<size_t>(held)]--;
      held = id;
      copies_[expert]++;
      num_loads_[slot->rank]++;
      after.to_load.push_back({.layer = layer_idx,
                               .expert = id,
                               .rank = static_cast<int>(slot->rank),
                               .slot = static_cast<int>(slot->idx)});
    }
    return ranks;
  }

 private:
  struct Slot {
    size_t rank = 0, idx = 0;
  };

  // Of the rank that is to load the least so far; none: no slot may be written.
  std::optional<Slot> best_slot(const Layer& ranks) const {
    std::optional<Slot> best;
    std::pair<int32_t, int64_t> best_price;
    for (size_t rank = 0; rank < ranks.size(); rank++) {
      for (size_t idx = 0; idx < ranks[rank].size(); idx++) {
        const int32_t held = ranks[rank][idx],
                      copies = held == ExpertPlacement::kSpare ? INT32_MAX : copies_[static_cast<size_t>(held)];
        const std::pair price(-copies, num_loads_[rank]);
        if (copies < 2 || (best && price >= best_price)) continue;
        best = Slot{rank, idx};
        best_price = price;
      }
    }
    return best;
  }

  const ExpertPlacement& placement_;
  std::vector<bool> is_lost_;
  std::vector<int64_t> num_loads_;  // of each rank
  std::vector<int32_t> copies_;     // that live of each expert of the layer
};

}  // namespace

int spare_slots_to_survive(int num_experts, int num_ranks, int num_lost) {
  CHECK(num_lost < num_ranks, "{} of {} ranks lost", num_lost, num_ranks);
  return num_lost <= 0 ? 0 : ceil_div(num_experts, num_ranks - num_lost) - num_experts / num_ranks;
}

AfterLoss placement_after_loss(const ExpertPlacement& placement, std::span<const int> lost_ranks) {
  AfterLoss after;
  Rehousing rehousing(placement, lost_ranks);
  std::vector<Layer> layers;
  for (int layer = 0; layer < placement.shape().num_layers; layer++) layers.push_back(rehousing.layer(layer, after));
  if (!after.homeless.empty()) return after;
  auto created = ExpertPlacement::create(placement.shape(), placement.version() + 1, layers);
  CHECK(created, "{}", created.error().message);
  after.placement = std::move(*created);
  return after;
}

std::string AfterLoss::text() const {
  if (homeless.empty())
    return to_load.empty()
               ? "every expert has a living copy"
               : fmt::format("{} experts are loaded from the files into other ranks' slots", to_load.size());
  const LostExpert& first = homeless.front();
  return fmt::format(
      "no slot is left for {} of {} experts that no living rank holds (the first: expert {} of layer {} "
      "of those with experts); the group waits for their ranks",
      homeless.size(), homeless.size() + to_load.size(), first.expert, first.layer);
}

}  // namespace cachalot
