#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "config/model_config.h"

namespace cachalot {

// Where the experts are: for every layer that has some, which slots each rank has, and which expert each slot holds.
// An expert may have several copies, each on another rank; a slot may be spare. Never changed: another placement is
// another object, of another version. A layer's slots are numbered through all ranks, in their order, and by that
// number they are named between ranks.
class ExpertPlacement {
 public:
  static constexpr int32_t kSpare = -1;                          // a slot that holds no expert
  static constexpr int kMostSlots = 65'535, kMostLayers = 4096;  // of a layer, as of experts and ranks; with experts

  struct Shape {
    int num_layers = 0, num_experts = 0;  // layers with experts, and the experts of each
    int num_ranks = 1;
    bool operator==(const Shape&) const = default;
  };
  using Layer = std::vector<std::vector<int32_t>>;  // [rank][slot]: an expert, or kSpare

  // Errors: a layer without one of the experts, an expert that is none or is twice on a rank, too many slots.
  static Result<ExpertPlacement> create(const Shape& shape, uint32_t version, std::span<const Layer> layers);
  // {"version": 1, "num_experts": 4, "num_ranks": 2, "layers": [[[0, 1], [2, 3, 0]], ...]}
  static Result<ExpertPlacement> parse(std::string_view json, const std::string& path);
  std::string to_json() const;

  const Shape& shape() const { return shape_; }
  uint32_t version() const { return version_; }
  int64_t hash() const { return hash_; }  // of all of it; 53 bits, so that JSON holds it

  int first_slot(int layer, int rank) const { return begin_of(layer, rank) - begin_of(layer, 0); }
  std::span<const int32_t> slots(int layer, int rank) const {  // what they hold
    return std::span(experts_).subspan(static_cast<size_t>(begin_of(layer, rank)), count_of(layer, rank));
  }
  std::span<const int32_t> experts() const { return experts_; }  // of all slots: layer by layer, rank by rank
  int most_slots() const { return most_slots_; }                 // of a rank, in a layer
  // Of all layers together.
  int64_t num_slots(int rank) const;
  int64_t num_held(int rank) const;  // but spare ones
  // For people: "experts 0-7", or where layers differ "8 to 9 experts".
  std::string text_of(int rank) const;

 private:
  ExpertPlacement(const Shape& shape, uint32_t version, std::span<const Layer> layers);
  int begin_of(int layer, int rank) const {
    return begins_[static_cast<size_t>(layer) * static_cast<size_t>(shape_.num_ranks) + static_cast<size_t>(rank)];
  }
  size_t count_of(int layer, int rank) const {
    return static_cast<size_t>(begin_of(layer, rank + 1) - begin_of(layer, rank));
  }

  Shape shape_;
  uint32_t version_;
  int64_t hash_ = 0;
  int most_slots_ = 0;
  std::vector<int32_t> begins_;   // [num_layers * num_ranks + 1], of
  std::vector<int32_t> experts_;  // all layers' slots
};
using SharedPlacement = std::shared_ptr<const ExpertPlacement>;

// ---- placements ----

// All of it, to be changed.
std::vector<ExpertPlacement::Layer> layers_of(const ExpertPlacement& placement);
// The next version, with these experts in the same slots.
Result<ExpertPlacement> with_experts(const ExpertPlacement& placement, std::span<const int32_t> experts);

// Each expert once, in order: as many on each rank, or one more on some. Those are others in other layers, so that all
// ranks hold about as much.
ExpertPlacement even_placement(const ExpertPlacement::Shape& shape);

// Of a model's experts on so many ranks.
ExpertPlacement::Shape placement_shape(const ModelConfig& config, int num_ranks);
// Null for a model without experts.
SharedPlacement even_placement(const ModelConfig& config, int num_ranks);

// A placement of as many ranks as are `living`, on these of num_ranks; the others have no slots.
Result<ExpertPlacement> placed_on(const ExpertPlacement& placement, std::span<const int> living, int num_ranks);

// With so many spare slots more, on each rank that has any, in each layer.
Result<ExpertPlacement> with_spare_slots(const ExpertPlacement& placement, int num_spare);

// ---- which copy ----

// A copy of an expert, as its home names it.
struct ExpertCopy {
  uint16_t rank = 0, slot = 0;  // the slot: of the layer
  bool operator==(const ExpertCopy&) const = default;
};

// Of one rank, the home: to which copy it sends a row. Its own, if there is one; else one of its node's, as far as
// these are not asked for more than those elsewhere: if all homes bring the same, all copies get the same. Of several
// the row's place decides. Looked up in flat tables.
class CopyChoice {
 public:
  // nodes: of each rank; empty: all on one.
  CopyChoice(const ExpertPlacement& placement, int home, std::span<const int> nodes);

  ExpertCopy choose(int layer, int32_t expert, int64_t row) const {
    const size_t entry = static_cast<size_t>(layer) * num_experts_ + static_cast<size_t>(expert);
    const uint32_t begin = begins_[entry], count = begins_[entry + 1] - begin;
    return copies_[count == 1 ? begin : begin + spread(entry, row, count)];
  }
  // All that rows of this expert may go to, each as often as it stands here.
  std::span<const ExpertCopy> copies(int layer, int32_t expert) const {
    const size_t entry = static_cast<size_t>(layer) * num_experts_ + static_cast<size_t>(expert);
    return std::span(copies_).subspan(begins_[entry], begins_[entry + 1] - begins_[entry]);
  }

 private:
  // Rows that follow each other take turns; homes, layers and experts begin anywhere.
  uint32_t spread(size_t entry, int64_t row, uint32_t count) const {
    const auto place = static_cast<uint32_t>(row) + seed_ + static_cast<uint32_t>(entry) * 0x85ebca6bU;
    return static_cast<uint32_t>((uint64_t{place * 0x9e3779b9U} * count) >> 32);
  }

  size_t num_experts_;
  uint32_t seed_;
  std::vector<uint32_t> begins_;  // [num_layers * num_experts + 1], of
  std::vector<ExpertCopy> copies_;
};

}  // namespace cachalot
