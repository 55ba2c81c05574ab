#include "placement/moves.h"

#include <algorithm>
#include <numeric>

namespace cachalot {
namespace {

void add_moves(const ExpertPlacement& now, const ExpertPlacement& next, int layer, int rank,
               std::vector<ExpertMove>& moves) {
  const std::span<const int32_t> before = now.slots(layer, rank), after = next.slots(layer, rank);
  CHECK(before.size() == after.size(), "rank {} has {} slots in layer {}, and is to have {}", rank, before.size(),
        layer, after.size());
  for (size_t slot = 0; slot < after.size(); slot++)
    if (after[slot] != before[slot] && after[slot] != ExpertPlacement::kSpare)
      moves.push_back({.layer = layer, .slot = static_cast<int>(slot), .expert = after[slot]});
}

int64_t num_spare(const ExpertPlacement& placement, int rank) {
  return placement.num_slots(rank) - placement.num_held(rank);
}

}  // namespace

std::vector<ExpertMove> moves_of(const ExpertPlacement& now, const ExpertPlacement& next, int rank) {
  CHECK(now.shape() == next.shape());
  std::vector<ExpertMove> moves;
  for (int layer = 0; layer < now.shape().num_layers; layer++) add_moves(now, next, layer, rank, moves);
  return moves;
}

int64_t num_moves(const ExpertPlacement& now, const ExpertPlacement& next) {
  int64_t count = 0;
  for (int rank = 0; rank < now.shape().num_ranks; rank++) count += std::ssize(moves_of(now, next, rank));
  return count;
}

int num_move_buffers(const ExpertPlacement& placement) {
  int64_t most = 0;
  for (int rank = 0; rank < placement.shape().num_ranks; rank++)
    for (int layer = 0; layer < placement.shape().num_layers; layer++)
      most = std::max(most, std::ssize(placement.slots(layer, rank)) - num_spare(placement, rank));
  return static_cast<int>(most);
}

std::optional<ExpertPlacement> next_stage(const ExpertPlacement& now, const ExpertPlacement& target,
                                          const ExpertLoad& load, int num_buffers) {
  const auto& shape = now.shape();
  const std::vector<double> before = busiest_rows(now, load), after = busiest_rows(target, load);
  std::vector<int> order(static_cast<size_t>(shape.num_layers));
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, std::greater<>(), [&](int layer) {
    return before[static_cast<size_t>(layer)] - after[static_cast<size_t>(layer)];
  });
  std::vector<int64_t> room;  // of each rank
  for (int rank = 0; rank < shape.num_ranks; rank++) room.push_back(num_spare(now, rank) + num_buffers);
  std::vector<ExpertPlacement::Layer> layers = layers_of(now);
  const std::vector<ExpertPlacement::Layer> wanted = layers_of(target);
  bool any = false;
  for (const int layer : order) {
    std::vector<int64_t> left = room;
    for (int rank = 0; rank < shape.num_ranks; rank++) {
      std::vector<ExpertMove> moves;
      add_moves(now, target, layer, rank, moves);
      left[static_cast<size_t>(rank)] -= std::ssize(moves);
    }
    const auto idx = static_cast<size_t>(layer);
    if (layers[idx] == wanted[idx] || std::ranges::min(left) < 0) continue;
    layers[idx] = wanted[idx];
    room = std::move(left);
    any = true;
  }
  if (!any) return std::nullopt;
  auto stage = ExpertPlacement::create(shape, now.version() + 1, layers);
  CHECK(stage, "{}", stage.error().message);
  return std::move(*stage);
}

}  // namespace cachalot
