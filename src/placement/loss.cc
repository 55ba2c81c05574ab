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
  explicit Rehousing(const ExpertPlacement::Shape& shape)
      : shape_(shape), num_loads_(static_cast<size_t>(shape.num_ranks)) {}

  // Writes the layer's slots for lost experts.
  void layer(int layer_idx, Layer& ranks, AfterLoss& after) {
    copies_.assign(static_cast<size_t>(shape_.num_experts), 0);
    for (const std::vector<int32_t>& slots : ranks)
      for (const int32_t expert : slots)
        if (expert != ExpertPlacement::kSpare) copies_[static_cast<size_t>(expert)]++;
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

  const ExpertPlacement::Shape shape_;
  std::vector<int64_t> num_loads_;  // of each rank
  std::vector<int32_t> copies_;     // that live of each expert of the layer
};

}  // namespace

int spare_slots_to_survive(int num_experts, int num_ranks, int num_lost) {
  CHECK(num_lost < num_ranks, "{} of {} ranks lost", num_lost, num_ranks);
  return num_lost <= 0 ? 0 : ceil_div(num_experts, num_ranks - num_lost) - num_experts / num_ranks;
}

Result<AfterLoss> placement_of_held(const ExpertPlacement::Shape& shape, uint32_t version, std::vector<Layer> held) {
  for (const Layer& layer : held)
    for (const std::vector<int32_t>& slots : layer)
      for (const int32_t expert : slots)
        if (expert < ExpertPlacement::kSpare || expert >= shape.num_experts)
          return make_error(ErrorCode::kCorrupt, "a rank holds expert {} of {}", expert, shape.num_experts);
  AfterLoss after;
  Rehousing rehousing(shape);
  for (size_t layer = 0; layer < held.size(); layer++) rehousing.layer(static_cast<int>(layer), held[layer], after);
  if (!after.homeless.empty()) return after;
  ASSIGN_OR_RETURN(after.placement, ExpertPlacement::create(shape, version, held));
  return after;
}

AfterLoss placement_after_loss(const ExpertPlacement& placement, std::span<const int> lost_ranks) {
  std::vector<Layer> held = layers_of(placement);
  for (Layer& layer : held)
    for (const int rank : lost_ranks) layer[static_cast<size_t>(rank)].clear();
  auto after = placement_of_held(placement.shape(), placement.version() + 1, std::move(held));
  CHECK(after, "{}", after.error().message);
  return std::move(*after);
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
