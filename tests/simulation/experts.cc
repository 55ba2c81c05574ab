#include "simulation/experts.h"

#include <fmt/format.h>

#include <algorithm>

namespace cachalot::simulation {

SharedPlacement Experts::first_placement(int num_ranks, bool with_spare) {
  const int num_experts = 3 * num_ranks + 1;
  auto placement =
      balanced_placement(ExpertLoad::uniform(2, num_experts), {.num_ranks = num_ranks, .num_redundant = num_ranks}, 1);
  CHECK(placement, "{}", placement.error().message);
  auto spare = with_spare_slots(*placement, with_spare ? 1 : 0);
  CHECK(spare, "{}", spare.error().message);
  return std::make_shared<const ExpertPlacement>(std::move(*spare));
}

Experts::Experts(SharedPlacement now, int rank)
    : now_(std::move(now)), rank_(rank), num_buffers_(num_move_buffers(*now_)) {
  for (int layer = 0; layer < now_->shape().num_layers; layer++) {
    std::vector<size_t>& slots = slots_.emplace_back();
    for (const int32_t expert : now_->slots(layer, rank_)) {
      slots.push_back(pieces_.size());
      pieces_.push_back(expert == ExpertPlacement::kSpare ? -1 : content_of(layer, expert));
    }
  }
  for (int buffer = 0; buffer < num_buffers_; buffer++) {
    buffers_.push_back(pieces_.size());
    pieces_.push_back(-1);
  }
}

bool Experts::is_of_slot(size_t piece) const {
  for (size_t layer = 0; layer < slots_.size(); layer++) {
    const std::span<const int32_t> held = now_->slots(static_cast<int>(layer), rank_);
    for (size_t slot = 0; slot < held.size(); slot++)
      if (slots_[layer][slot] == piece && held[slot] != ExpertPlacement::kSpare) return true;
  }
  return false;
}

void Experts::start(SharedPlacement next) {
  drop();
  next_ = std::move(next);
  moves_ = moves_of(*now_, *next_, rank_);
  std::vector<size_t*> free;
  for (size_t& buffer : buffers_) free.push_back(&buffer);
  for (size_t layer = 0; layer < slots_.size(); layer++)
    for (size_t slot = 0; slot < slots_[layer].size(); slot++)
      if (now_->slots(static_cast<int>(layer), rank_)[slot] == ExpertPlacement::kSpare)
        free.push_back(&slots_[layer][slot]);
  if (free.size() < moves_.size())
    throw Violation(fmt::format("{} experts are to come to a rank with room for {}", moves_.size(), free.size()));
  rooms_.assign(free.begin(), free.begin() + static_cast<std::ptrdiff_t>(moves_.size()));
}

void Experts::bring(size_t move) {
  if (is_of_slot(*rooms_[move])) throw Violation("a slot is written that rows may go to");
  pieces_[*rooms_[move]] = content_of(moves_[move].layer, moves_[move].expert);
}

void Experts::apply() {
  for (size_t move = 0; move < moves_.size(); move++)
    std::swap(*rooms_[move], slots_[static_cast<size_t>(moves_[move].layer)][static_cast<size_t>(moves_[move].slot)]);
  now_ = next_;
  drop();
  check();
}

void Experts::drop() {
  next_ = nullptr;
  moves_.clear();
  rooms_.clear();
}

void Experts::check() const {
  for (size_t layer = 0; layer < slots_.size(); layer++) {
    const std::span<const int32_t> held = now_->slots(static_cast<int>(layer), rank_);
    for (size_t slot = 0; slot < held.size(); slot++)
      if (held[slot] != ExpertPlacement::kSpare &&
          pieces_[slots_[layer][slot]] != content_of(static_cast<int>(layer), held[slot]))
        throw Violation(
            fmt::format("a slot of rank {} has another expert in it than placement {} says", rank_, now_->version()));
  }
}

std::deque<SharedPlacement> Experts::plan(Random& random) const {
  const auto& shape = now_->shape();
  ExpertLoad load = ExpertLoad::uniform(shape.num_layers, shape.num_experts);
  for (std::vector<double>& layer : load.layers)
    for (double& rows : layer) rows = random.between(1, 100);
  const auto target = rebalanced_placement(*now_, load, {.num_ranks = shape.num_ranks});
  CHECK(target, "{}", target.error().message);
  std::deque<SharedPlacement> stages;
  while (auto stage = next_stage(stages.empty() ? *now_ : *stages.back(), *target, load, num_buffers_))
    stages.push_back(std::make_shared<const ExpertPlacement>(std::move(*stage)));
  return stages;
}

}  // namespace cachalot::simulation
