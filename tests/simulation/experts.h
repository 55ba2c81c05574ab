#pragma once

#include <memory>
#include <vector>

#include "placement/moves.h"
#include "simulation/world.h"

namespace cachalot::simulation {

// A rank's experts: what is in the memory of its slots and of its buffers, by the rules of placement/moves.h.
class Experts {
 public:
  // Two layers, with some copies, now and then with spare slots.
  static SharedPlacement first_placement(int num_ranks, bool with_spare);
  Experts(SharedPlacement now, int rank);

  void start(SharedPlacement next);
  size_t num_moves() const { return moves_.size(); }
  void bring(size_t move);  // in the background: writes what is in no slot
  void apply();
  void drop();
  // That each slot has in it what the placement says.
  void check() const;
  // A way to somewhere else, as rank 0 finds it.
  std::deque<SharedPlacement> plan(Random& random) const;

 private:
  int content_of(int layer, int32_t expert) const { return layer * now_->shape().num_experts + expert; }
  bool is_of_slot(size_t piece) const;

  SharedPlacement now_, next_;
  const int rank_, num_buffers_;
  std::vector<int> pieces_;                 // of memory: what is in each; -1: nothing
  std::vector<std::vector<size_t>> slots_;  // [layer][slot]: its piece
  std::vector<size_t> buffers_;             // their pieces
  std::vector<ExpertMove> moves_;
  std::vector<size_t*> rooms_;  // of each move: whose piece it is brought to
};

}  // namespace cachalot::simulation
