#include "placement/expert_placement.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json.hpp>
#include <limits>
#include <utility>

#include "base/math.h"
#include "config/json.h"

namespace cachalot {
namespace {

using Layer = ExpertPlacement::Layer;
using Shape = ExpertPlacement::Shape;

constexpr int kMostSlots = ExpertPlacement::kMostSlots, kMostLayers = ExpertPlacement::kMostLayers;

Status check_shape(const Shape& shape) {
  if (shape.num_layers < 0 || shape.num_layers > kMostLayers || shape.num_experts < 1 ||
      shape.num_experts > kMostSlots || shape.num_ranks < 1 || shape.num_ranks > kMostSlots)
    return make_error(ErrorCode::kInvalidArgument, "{} layers with {} experts on {} ranks", shape.num_layers,
                      shape.num_experts, shape.num_ranks);
  return {};
}

Status check_layer(const Shape& shape, size_t layer, const Layer& ranks) {
  const auto fault = [&](std::string_view what) {
    return make_error(ErrorCode::kInvalidArgument, "placement of experts, layer {} of those with experts: {}", layer,
                      what);
  };
  if (std::ssize(ranks) != shape.num_ranks)
    return fault(fmt::format("{} ranks instead of {}", ranks.size(), shape.num_ranks));
  size_t num_slots = 0;
  std::vector<int> last_rank(static_cast<size_t>(shape.num_experts), -1);
  for (int rank = 0; rank < shape.num_ranks; rank++) {
    for (const int32_t expert : ranks[static_cast<size_t>(rank)]) {
      if (expert == ExpertPlacement::kSpare) continue;
      if (expert < 0 || expert >= shape.num_experts)
        return fault(fmt::format("rank {} holds expert {} of {}", rank, expert, shape.num_experts));
      if (std::exchange(last_rank[static_cast<size_t>(expert)], rank) == rank)
        return fault(fmt::format("rank {} holds expert {} twice", rank, expert));
    }
    num_slots += ranks[static_cast<size_t>(rank)].size();
  }
  if (num_slots > kMostSlots) return fault(fmt::format("{} slots, at most {}", num_slots, kMostSlots));
  const auto missing = std::ranges::find(last_rank, -1);
  if (missing != last_rank.end()) return fault(fmt::format("no rank holds expert {}", missing - last_rank.begin()));
  return {};
}

}  // namespace

std::vector<Layer> layers_of(const ExpertPlacement& placement) {
  std::vector<Layer> layers(static_cast<size_t>(placement.shape().num_layers));
  for (int layer = 0; layer < placement.shape().num_layers; layer++) {
    for (int rank = 0; rank < placement.shape().num_ranks; rank++) {
      const std::span<const int32_t> slots = placement.slots(layer, rank);
      layers[static_cast<size_t>(layer)].emplace_back(slots.begin(), slots.end());
    }
  }
  return layers;
}

ExpertPlacement::ExpertPlacement(const Shape& shape, uint32_t version, std::span<const Layer> layers)
    : shape_(shape), version_(version) {
  begins_.push_back(0);
  for (const Layer& ranks : layers) {
    for (const std::vector<int32_t>& slots : ranks) {
      experts_.insert(experts_.end(), slots.begin(), slots.end());
      begins_.push_back(static_cast<int32_t>(experts_.size()));
      most_slots_ = std::max(most_slots_, static_cast<int>(slots.size()));
    }
  }
  portable::BitHash hash;
  hash.add(uint64_t{version_});
  for (const int number : {shape_.num_layers, shape_.num_experts, shape_.num_ranks})
    hash.add(static_cast<uint64_t>(number));
  for (const std::vector<int32_t>* numbers : {&begins_, &experts_})
    for (const int32_t number : *numbers) hash.add(static_cast<uint64_t>(number));
  hash_ = static_cast<int64_t>(hash.value() >> 11);
}

Result<ExpertPlacement> ExpertPlacement::create(const Shape& shape, uint32_t version, std::span<const Layer> layers) {
  RETURN_IF_ERROR(check_shape(shape));
  if (std::ssize(layers) != shape.num_layers)
    return make_error(ErrorCode::kInvalidArgument, "placement of experts: {} layers instead of {}", layers.size(),
                      shape.num_layers);
  for (size_t layer = 0; layer < layers.size(); layer++) RETURN_IF_ERROR(check_layer(shape, layer, layers[layer]));
  return ExpertPlacement(shape, version, layers);
}

Result<ExpertPlacement> ExpertPlacement::parse(std::string_view text, const std::string& path) {
  ASSIGN_OR_RETURN(const boost::json::object object, parse_json_object(text, path));
  JsonKeys keys(object, path);
  int version = 0;
  Shape shape;
  keys.require("version", version, 0, std::numeric_limits<int>::max());
  keys.require("num_experts", shape.num_experts, 1, kMostSlots);
  keys.require("num_ranks", shape.num_ranks, 1, kMostSlots);
  if (!keys.find("layers")) keys.miss("layers");
  RETURN_IF_ERROR(keys.status());
  std::vector<Layer> layers;
  try {
    layers = boost::json::value_to<std::vector<Layer>>(object.at("layers"));
  } catch (const std::exception& exception) {
    return make_error(ErrorCode::kCorrupt, "{}: layers must be lists of ranks, each a list of experts: {}", path,
                      exception.what());
  }
  shape.num_layers = static_cast<int>(std::min<size_t>(layers.size(), kMostLayers + 1));
  Result<ExpertPlacement> placement = create(shape, static_cast<uint32_t>(version), layers);
  if (!placement) placement.error().message = path + ": " + placement.error().message;
  return placement;
}

std::string ExpertPlacement::to_json() const {
  return boost::json::serialize(boost::json::object{{"version", version_},
                                                    {"num_experts", shape_.num_experts},
                                                    {"num_ranks", shape_.num_ranks},
                                                    {"layers", boost::json::value_from(layers_of(*this))}}) +
         "\n";
}

int64_t ExpertPlacement::num_slots(int rank) const {
  int64_t count = 0;
  for (int layer = 0; layer < shape_.num_layers; layer++) count += std::ssize(slots(layer, rank));
  return count;
}

int64_t ExpertPlacement::num_held(int rank) const {
  int64_t spare = 0;
  for (int layer = 0; layer < shape_.num_layers; layer++) spare += std::ranges::count(slots(layer, rank), kSpare);
  return num_slots(rank) - spare;
}

std::string ExpertPlacement::text_of(int rank) const {
  size_t least = SIZE_MAX, most = 0;
  bool alike = true, in_a_row = true;
  for (int layer = 0; layer < shape_.num_layers; layer++) {
    const std::span<const int32_t> held = slots(layer, rank);
    const size_t count = held.size() - static_cast<size_t>(std::ranges::count(held, kSpare));
    least = std::min(least, count);
    most = std::max(most, count);
    alike = alike && std::ranges::equal(held, slots(0, rank));
    for (size_t idx = 0; idx < held.size(); idx++)
      in_a_row = in_a_row && held[idx] == held[0] + static_cast<int32_t>(idx);
  }
  if (most == 0) return "no experts";
  if (alike && in_a_row && slots(0, rank)[0] != kSpare)
    return fmt::format("experts {}-{}", slots(0, rank).front(), slots(0, rank).back());
  return least == most ? fmt::format("{} experts", most) : fmt::format("{} to {} experts", least, most);
}

ExpertPlacement even_placement(const Shape& shape) {
  CHECK(check_shape(shape), "{} layers with {} experts on {} ranks", shape.num_layers, shape.num_experts,
        shape.num_ranks);
  std::vector<Layer> layers(static_cast<size_t>(shape.num_layers));
  for (int layer = 0; layer < shape.num_layers; layer++) {
    const auto begin_of = [&](int64_t rank) {
      return static_cast<int32_t>((rank * shape.num_experts + layer % shape.num_ranks) / shape.num_ranks);
    };
    for (int rank = 0; rank < shape.num_ranks; rank++) {
      std::vector<int32_t>& slots = layers[static_cast<size_t>(layer)].emplace_back();
      for (int32_t expert = begin_of(rank); expert < begin_of(rank + 1); expert++) slots.push_back(expert);
    }
  }
  auto placement = ExpertPlacement::create(shape, 1, layers);
  CHECK(placement, "{}", placement.error().message);
  return std::move(*placement);
}

Shape placement_shape(const ModelConfig& config, int num_ranks) {
  Shape shape{.num_experts = config.num_experts, .num_ranks = num_ranks};
  for (int layer = 0; layer < config.num_layers; layer++) shape.num_layers += config.is_moe_layer(layer);
  return shape;
}

SharedPlacement even_placement(const ModelConfig& config, int num_ranks) {
  if (config.num_experts == 0) return nullptr;
  return std::make_shared<const ExpertPlacement>(even_placement(placement_shape(config, num_ranks)));
}

Result<ExpertPlacement> placed_on(const ExpertPlacement& placement, std::span<const int> living, int num_ranks) {
  if (std::ssize(living) != placement.shape().num_ranks)
    return make_error(ErrorCode::kInvalidArgument, "a placement of {} ranks for {} that live",
                      placement.shape().num_ranks, living.size());
  Shape shape = placement.shape();
  shape.num_ranks = num_ranks;
  std::vector<Layer> layers;
  for (Layer& of_living : layers_of(placement)) {
    Layer& layer = layers.emplace_back(static_cast<size_t>(num_ranks));
    for (size_t idx = 0; idx < living.size(); idx++) {
      if (living[idx] < 0 || living[idx] >= num_ranks || !layer[static_cast<size_t>(living[idx])].empty())
        return make_error(ErrorCode::kInvalidArgument, "rank {} of {}, or twice", living[idx], num_ranks);
      layer[static_cast<size_t>(living[idx])] = std::move(of_living[idx]);
    }
  }
  return ExpertPlacement::create(shape, placement.version(), layers);
}

Result<ExpertPlacement> with_experts(const ExpertPlacement& placement, std::span<const int32_t> experts) {
  std::vector<Layer> layers = layers_of(placement);
  CHECK(experts.size() == placement.experts().size());
  for (Layer& layer : layers) {
    for (std::vector<int32_t>& slots : layer) {
      std::ranges::copy(experts.first(slots.size()), slots.begin());
      experts = experts.subspan(slots.size());
    }
  }
  return ExpertPlacement::create(placement.shape(), placement.version() + 1, layers);
}

Result<ExpertPlacement> with_spare_slots(const ExpertPlacement& placement, int num_spare) {
  std::vector<Layer> layers = layers_of(placement);
  for (Layer& layer : layers)
    for (size_t rank = 0; rank < layer.size(); rank++)
      if (placement.num_slots(static_cast<int>(rank)) > 0)
        layer[rank].insert(layer[rank].end(), static_cast<size_t>(num_spare), ExpertPlacement::kSpare);
  return ExpertPlacement::create(placement.shape(), placement.version(), layers);
}

namespace {

// To which copies of an expert a home's rows go, each as often as it stands here. All of a rank's own rows go to its
// own copy. Those of the other homes: to copies on their node, but to none more than to any other in all; what these
// cannot take goes where there is least asked. ranks_of_nodes: how many each has.
std::vector<ExpertCopy> shared_out(std::span<const ExpertCopy> copies, int home, std::span<const int> nodes,
                                   std::span<const int64_t> ranks_of_nodes, int num_ranks) {
  const auto node_of = [&](int rank) { return nodes.empty() ? 0 : nodes[static_cast<size_t>(rank)]; };
  const auto own = std::ranges::find(copies, home, &ExpertCopy::rank);
  if (own != copies.end()) return {*own};
  struct Node {
    int64_t num_copies = 0, num_ranks = 0;
    double room = 0, asked = 0;  // by ranks without a copy; all nodes' are equal
    double at_home() const { return std::min(room, asked); }
  };
  std::vector<Node> of_nodes(ranks_of_nodes.size());
  for (size_t node = 0; node < of_nodes.size(); node++) of_nodes[node].num_ranks = ranks_of_nodes[node];
  for (const ExpertCopy& copy : copies) of_nodes[static_cast<size_t>(node_of(copy.rank))].num_copies++;
  double all_left = 0;
  for (Node& node : of_nodes) {
    node.room = static_cast<double>(node.num_copies * (num_ranks - std::ssize(copies)));
    node.asked = static_cast<double>((node.num_ranks - node.num_copies) * std::ssize(copies));
    all_left += node.room - node.at_home();
  }
  const Node& own_node = of_nodes[static_cast<size_t>(node_of(home))];
  const auto share_of = [&](const ExpertCopy& copy) {
    const Node& node = of_nodes[static_cast<size_t>(node_of(copy.rank))];
    const double for_node = &node == &own_node ? node.at_home()
                            : all_left > 0
                                ? (own_node.asked - own_node.at_home()) * (node.room - node.at_home()) / all_left
                                : 0;
    return for_node / static_cast<double>(node.num_copies) / own_node.asked;
  };
  const double parts = std::max<double>(32, 8 * static_cast<double>(copies.size()));
  std::vector<ExpertCopy> shared;
  double so_far = 0;
  for (const ExpertCopy& copy : copies) {
    so_far += share_of(copy);
    shared.resize(std::max(shared.size(), static_cast<size_t>(so_far * parts + 0.5)), copy);
  }
  std::vector<ExpertCopy> each_once = shared;
  const auto again = std::ranges::unique(each_once);
  each_once.erase(again.begin(), again.end());
  const bool alike = std::ranges::all_of(each_once, [&](const ExpertCopy& copy) {
    return std::max(share_of(copy), share_of(each_once[0])) - std::min(share_of(copy), share_of(each_once[0])) < 1e-6;
  });
  return alike ? each_once : shared;
}

}  // namespace

CopyChoice::CopyChoice(const ExpertPlacement& placement, int home, std::span<const int> nodes)
    : num_experts_(static_cast<size_t>(placement.shape().num_experts)),
      seed_(static_cast<uint32_t>(home) * 0xc2b2ae35U) {
  const int num_ranks = placement.shape().num_ranks;
  begins_.push_back(0);
  std::vector<std::vector<ExpertCopy>> copies(num_experts_);
  std::vector<int64_t> ranks_of_nodes(nodes.empty() ? 1 : static_cast<size_t>(std::ranges::max(nodes)) + 1);
  for (int rank = 0; rank < num_ranks; rank++)
    ranks_of_nodes[nodes.empty() ? 0 : static_cast<size_t>(nodes[static_cast<size_t>(rank)])]++;
  for (int layer = 0; layer < placement.shape().num_layers; layer++) {
    for (std::vector<ExpertCopy>& of_expert : copies) of_expert.clear();
    for (int rank = 0; rank < num_ranks; rank++) {
      auto slot = static_cast<uint16_t>(placement.first_slot(layer, rank));
      for (const int32_t expert : placement.slots(layer, rank)) {
        if (expert != ExpertPlacement::kSpare)
          copies[static_cast<size_t>(expert)].push_back({static_cast<uint16_t>(rank), slot});
        slot++;
      }
    }
    for (std::vector<ExpertCopy>& of_expert : copies) {
      if (of_expert.size() > 1) of_expert = shared_out(of_expert, home, nodes, ranks_of_nodes, num_ranks);
      copies_.insert(copies_.end(), of_expert.begin(), of_expert.end());
      begins_.push_back(static_cast<uint32_t>(copies_.size()));
    }
  }
}

}  // namespace cachalot
