#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <type_traits>
#include <vector>

#include "model/model_weights.h"

namespace cachalot {

// The ranks of this node, from whose memory an expert can be read (process_vm_readv) without their doing anything, as
// long as it keeps its slot. A process that runs in another namespace, or that the system does not let read, is none.
class Neighbours {
 public:
  // What a rank tells the others of itself; travels as it is.
  struct Word {
    int64_t pid = 0;
    uint64_t self = 0;                 // where this object's Told is in its memory
    std::array<uint64_t, 2> secret{};  // that stands there, too
  };

  // The weights are borrowed: slots keep their places, what is in them may change between two steps. readers: the
  // process that may read this one's memory, with its descendants, where the system asks for leave (Yama); 0: none.
  Neighbours(const ModelWeights& weights, int64_t readers);

  Word word() const;
  // words: of all ranks; nodes: of each; empty: all on one.
  void meet(std::span<const Word> words, std::span<const int> nodes, int own_rank);

  // Those that can be read, this one first.
  const std::vector<int>& ranks() const { return ranks_; }
  // What that rank has in a slot, to where `to` says, if it has the shape of that. Any thread.
  bool copy(int rank, int layer, int slot, const ExpertWeights& to) const;

 private:
  // Where a layer's matrices stand, a slot each.
  struct LayerSlots {
    const PackedMatrix *gate_up = nullptr, *down = nullptr;
    uint64_t num_slots = 0;
  };
  struct Told {
    std::array<uint64_t, 2> secret{};
    const LayerSlots* layers = nullptr;
  };
  bool read_layers(size_t rank, size_t num_layers);

  std::vector<LayerSlots> layers_;
  std::unique_ptr<Told> told_;
  std::vector<Word> words_;
  std::vector<std::vector<LayerSlots>> layers_of_;  // of each rank
  std::vector<int> ranks_;
};
static_assert(std::is_trivially_copyable_v<Neighbours::Word>);

}  // namespace cachalot
