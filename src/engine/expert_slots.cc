#include "engine/expert_slots.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/math.h"

namespace cachalot {
namespace {

constexpr size_t kAlignment = 64;

Error named(const Error& error, int layer, int32_t expert) {
  return {error.code, fmt::format("expert {} of layer {}: {}", expert, layer, error.message), {}};
}

}  // namespace

ExpertSlots::ExpertSlots(DeepseekModel& model, const ExpertPlacement& placement) : model_(model) {
  const auto note = [&](const Room& room) {
    bytes_[room.data()] = static_cast<size_t>(room.down->data - room.gate_up->data) + room.down->shape.bytes();
  };
  begins_.push_back(0);
  for (int layer = 0; layer < model.config().num_layers; layer++) {
    if (!model.config().is_moe_layer(layer)) continue;
    const auto slots = placement.slots(static_cast<int>(layers_.size()), model.settings().ep_rank);
    layers_.push_back(layer);
    held_.insert(held_.end(), slots.begin(), slots.end());
    begins_.push_back(static_cast<int>(held_.size()));
    for (int slot = 0; slot < std::ssize(slots); slot++) note(room(static_cast<int>(layers_.size()) - 1, slot));
  }
  for (const Room& buffer : buffers()) note(buffer);
}

std::span<const int32_t> ExpertSlots::held(int layer) const {
  const auto begin = static_cast<size_t>(begins_[layer]), end = static_cast<size_t>(begins_[layer + 1]);
  return std::span(held_).subspan(begin, end - begin);
}

ExpertSlots::Room ExpertSlots::room(int layer, int slot) {
  MoeWeights& weights = moe_layer(layer);
  return {&weights.gate_up[static_cast<size_t>(slot)], &weights.down[static_cast<size_t>(slot)]};
}

std::vector<ExpertSlots::Room> ExpertSlots::buffers() {
  std::vector<Room> rooms;
  for (ExpertWeights& buffer : model_.weights().move_buffers) rooms.push_back({&buffer.gate_up, &buffer.down});
  return rooms;
}

Result<ExpertWeights> ExpertSlots::plan(const WeightCatalog& files, int layer, int32_t expert) {
  WeightPacker planner = WeightPacker::planner(model_.settings());
  const auto planned = load_expert(model_.config(), model_.settings(), files, planner, layers_[layer], expert);
  if (!planned) return std::unexpected(named(planned.error(), layers_[layer], expert));
  if (const MoeWeights& others = moe_layer(layer); planned->input_group != others.input_group)
    return std::unexpected(experts_differ(layers_[layer], {std::max(held(layer)[0], 0), others.input_group},
                                          {expert, planned->input_group}));
  return planned->weights;
}

size_t ExpertSlots::bytes_of(const ExpertWeights& weights) {
  return round_up(weights.gate_up.shape.bytes(), kAlignment) + weights.down.shape.bytes();
}

ExpertWeights ExpertSlots::placed(const Room& room, ExpertWeights weights) {
  weights.gate_up.data = room.data();
  weights.down.data = room.data() + round_up(weights.gate_up.shape.bytes(), kAlignment);
  return weights;
}

Status ExpertSlots::read(const WeightCatalog& files, Device& device, int layer, int32_t expert, const Room& room) {
  WeightPacker packer =
      WeightPacker::packer(model_.settings(), device, View<std::byte, 1>(room.data(), bytes_of(room)), {});
  const auto loaded = load_expert(model_.config(), model_.settings(), files, packer, layers_[layer], expert);
  if (!loaded) return std::unexpected(named(loaded.error(), layers_[layer], expert));
  CHECK(loaded->weights.down.data == placed(room, loaded->weights).down.data);
  return {};
}

Status ExpertSlots::load(const WeightCatalog& files, Device& device, int layer, int slot, int32_t expert) {
  ASSIGN_OR_RETURN(const ExpertWeights planned, plan(files, layer, expert));
  const Room own = room(layer, slot);
  if (bytes_of(planned) > bytes_of(own))
    return make_error(ErrorCode::kOutOfMemory, "expert {} of layer {} takes {} bytes; the slot for it has {}", expert,
                      layers_[layer], bytes_of(planned), bytes_of(own));
  hold(layer, slot, ExpertPlacement::kSpare);
  RETURN_IF_ERROR(read(files, device, layer, expert, own));
  const ExpertWeights weights = placed(own, planned);
  *own.gate_up = weights.gate_up;
  *own.down = weights.down;
  hold(layer, slot, expert);
  return {};
}

}  // namespace cachalot
