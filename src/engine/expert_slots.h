#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "base/error.h"
#include "model/deepseek.h"
#include "placement/expert_placement.h"
#include "weights/weight_catalog.h"

namespace cachalot {

// This rank's slots for experts, and the memory that they and the model's buffers have: which expert each slot holds,
// whatever placement says otherwise. Layers are counted among those with experts. Borrows the model. Used by the
// engine's thread, but for what another placement's experts are brought by beside it (engine/expert_mover.h): that
// changes no slot.
class ExpertSlots {
 public:
  // Memory for an expert: a slot's or a buffer's.
  struct Room {
    PackedMatrix *gate_up = nullptr, *down = nullptr;
    std::byte* data() const { return const_cast<std::byte*>(gate_up->data); }  // the model's own
    bool operator==(const Room&) const = default;
  };

  // Behind loading: the slots hold what the placement says of this rank.
  ExpertSlots(DeepseekModel& model, const ExpertPlacement& placement);

  // [slots of the layer]; all layers' one behind the other.
  std::span<const int32_t> held(int layer) const;
  std::span<const int32_t> held() const { return held_; }
  void hold(int layer, int slot, int32_t expert) { held_[static_cast<size_t>(begins_[layer] + slot)] = expert; }

  Room room(int layer, int slot);
  std::vector<Room> buffers();
  size_t bytes_of(const Room& room) const { return bytes_.at(room.data()); }

  // An expert's shapes, without memory. Errors name expert and layer: the files; rows that it takes otherwise than the
  // layer's others.
  Result<ExpertWeights> plan(const WeightCatalog& files, int layer, int32_t expert);
  static size_t bytes_of(const ExpertWeights& weights);
  // The same in a room that is large enough.
  static ExpertWeights placed(const Room& room, ExpertWeights weights);
  // Fills the room with the expert, from the files.
  Status read(const WeightCatalog& files, Device& device, int layer, int32_t expert, const Room& room);

  // A slot's own memory gets another expert, from the files; it holds none until that is there.
  Status load(const WeightCatalog& files, Device& device, int layer, int slot, int32_t expert);

 private:
  MoeWeights& moe_layer(int layer) { return *model_.weights().layers[static_cast<size_t>(layers_[layer])].moe; }

  DeepseekModel& model_;
  std::vector<int> layers_;                             // the model's, of those with experts
  std::vector<int> begins_;                             // [layers + 1], of
  std::vector<int32_t> held_;                           // all layers' slots
  std::unordered_map<const std::byte*, size_t> bytes_;  // of each room, by where it begins
};

}  // namespace cachalot
