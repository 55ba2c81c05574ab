#include "placement/balance.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cmath>
#include <numeric>
#include <queue>

#include "config/json.h"

namespace cachalot {

Result<ExpertLoad> ExpertLoad::parse(std::string_view text, const std::string& path) {
  ASSIGN_OR_RETURN(const boost::json::object object, parse_json_object(text, path));
  ExpertLoad load;
  const boost::json::value* const layers = object.if_contains("layers");
  try {
    if (layers) load.layers = boost::json::value_to<std::vector<std::vector<double>>>(*layers);
  } catch (const std::exception&) {
    load.layers.clear();
  }
  const auto is_count = [](double count) { return std::isfinite(count) && count >= 0; };
  for (const std::vector<double>& counts : load.layers)
    if (counts.empty() || counts.size() != load.layers[0].size() || !std::ranges::all_of(counts, is_count))
      return make_error(ErrorCode::kCorrupt, "{}: layers must be as long as each other, of counts from 0 on", path);
  if (load.layers.empty())
    return make_error(ErrorCode::kCorrupt, "{}: layers must be a list for each layer with experts, of rows for each",
                      path);
  return load;
}

ExpertLoad ExpertLoad::uniform(int num_layers, int num_experts) {
  return {std::vector(static_cast<size_t>(num_layers), std::vector(static_cast<size_t>(num_experts), 1.0))};
}

Status ExpertLoad::add(const ExpertLoad& other) {
  if (other.layers.size() != layers.size() || other.num_experts() != num_experts())
    return make_error(ErrorCode::kInvalidArgument, "loads of {} and of {} layers, with {} and {} experts",
                      layers.size(), other.layers.size(), num_experts(), other.num_experts());
  for (size_t layer = 0; layer < layers.size(); layer++)
    for (size_t expert = 0; expert < layers[layer].size(); expert++)
      layers[layer][expert] += other.layers[layer][expert];
  return {};
}

namespace {

using Layer = ExpertPlacement::Layer;

struct Item {
  int32_t expert;  // or a group of them
  double load;
};

// Copies for so many slots: each in turn to the expert whose copies have most to do, but no more than there are ranks.
// Busiest copies first.
std::vector<Item> replicate(std::span<const Item> experts, int64_t num_slots, int most_copies) {
  struct Copied {
    Item item;
    int copies = 1;
    double each() const { return item.load / copies; }
    bool operator<(const Copied& other) const {  // the busier, then the first
      return each() != other.each() ? each() < other.each() : item.expert > other.item.expert;
    }
  };
  std::priority_queue<Copied> queue;
  std::vector<Copied> done;
  for (const Item& item : experts) queue.push({item});
  for (int64_t more = num_slots - std::ssize(experts); more > 0 && !queue.empty();) {
    Copied busiest = queue.top();
    queue.pop();
    if (busiest.copies == most_copies) {
      done.push_back(busiest);
      continue;
    }
    busiest.copies++;
    more--;
    queue.push(busiest);
  }
  for (; !queue.empty(); queue.pop()) done.push_back(queue.top());
  std::ranges::sort(done, [](const Copied& left, const Copied& right) { return right < left; });
  std::vector<Item> copies;
  for (const Copied& copied : done)
    copies.insert(copies.end(), static_cast<size_t>(copied.copies), {copied.item.expert, copied.each()});
  return copies;
}

// Bins with room for some items each, filled with the items in their order: each goes where there is least so far.
class Bins {
 public:
  explicit Bins(std::vector<int64_t> rooms) : rooms_(std::move(rooms)), loads_(rooms_.size()), items_(rooms_.size()) {}

  void pack(std::span<const Item> items) {
    for (const Item& item : items) {
      if (const size_t bin = emptiest(item); bin < rooms_.size()) {
        put(bin, item);
      } else {
        swap_in(item);
      }
    }
  }
  // As long as it helps, an item of the busiest bin changes places with a lighter one of another.
  void refine() {
    constexpr int kMostSwaps = 1000;
    for (int swaps = 0; swaps < kMostSwaps && swap_from(busiest()); swaps++) continue;
  }
  const std::vector<std::vector<Item>>& items() const { return items_; }
  double most() const { return std::ranges::max(loads_); }

 private:
  bool holds(size_t bin, int32_t expert) const {
    return std::ranges::find(items_[bin], expert, &Item::expert) != items_[bin].end();
  }
  bool has_room(size_t bin) const { return std::ssize(items_[bin]) < rooms_[bin]; }
  void put(size_t bin, const Item& item) {
    items_[bin].push_back(item);
    loads_[bin] += item.load;
  }
  size_t busiest() const { return static_cast<size_t>(std::ranges::max_element(loads_) - loads_.begin()); }
  size_t emptiest(const Item& item) const {
    size_t best = rooms_.size();
    for (size_t bin = 0; bin < rooms_.size(); bin++)
      if (has_room(bin) && (best == rooms_.size() || loads_[bin] < loads_[best]) && !holds(bin, item.expert))
        best = bin;
    return best;
  }
  // All bins with room have it already: one that has not takes it for another item, which goes where there is room. A
  // copy for which there is no such way is left out.
  void swap_in(const Item& item) {
    for (size_t full = 0; full < rooms_.size(); full++) {
      if (has_room(full) || holds(full, item.expert)) continue;
      for (Item& moved : items_[full]) {
        const size_t bin = emptiest(moved);
        if (bin == rooms_.size()) continue;
        put(bin, moved);
        loads_[full] += item.load - moved.load;
        moved = item;
        return;
      }
    }
  }
  bool swap_from(size_t bin) {
    for (Item& own : items_[bin]) {
      for (size_t other = 0; other < rooms_.size(); other++) {
        if (other == bin || holds(other, own.expert)) continue;
        for (Item& theirs : items_[other]) {
          const double less = own.load - theirs.load;
          if (less <= 0 || loads_[other] + less >= loads_[bin] || holds(bin, theirs.expert)) continue;
          std::swap(own, theirs);
          loads_[bin] -= less;
          loads_[other] += less;
          return true;
        }
      }
    }
    return false;
  }

  std::vector<int64_t> rooms_;
  std::vector<double> loads_;
  std::vector<std::vector<Item>> items_;
};

bool busier(const Item& left, const Item& right) {
  return left.load != right.load ? left.load > right.load : left.expert < right.expert;
}

// How many slots each rank has for experts of a layer.
using Rooms = std::vector<int64_t>;

// Spread as evenly as it goes; other ranks have one more in other layers.
Rooms even_rooms(int64_t num_slots, int num_ranks, int layer) {
  Rooms rooms;
  const auto begin_of = [&](int64_t rank) { return (rank * num_slots + layer % num_ranks) / num_ranks; };
  for (int rank = 0; rank < num_ranks; rank++) rooms.push_back(begin_of(rank + 1) - begin_of(rank));
  return rooms;
}

class LayerBalance {
 public:
  LayerBalance(std::span<const double> load, const BalanceOptions& options, const Rooms& rooms)
      : load_(load), options_(options), rooms_(rooms) {}

  struct Placed {
    Layer ranks;  // the experts of each, in order
    double busiest = 0;
    bool by_groups = false;
  };
  Placed place() const {
    std::vector<Item> experts;
    for (size_t expert = 0; expert < load_.size(); expert++)
      experts.push_back({static_cast<int32_t>(expert), load_[expert]});
    Placed anywhere;
    place_on(experts, 0, options_.num_ranks, anywhere);
    if (groups_divide()) {
      Placed by_group = place_groups(experts);
      const double mean = std::accumulate(load_.begin(), load_.end(), 0.0) / options_.num_ranks;
      if (by_group.busiest <= std::max(kWorthStaying * mean, kAboutAsGood * anywhere.busiest)) return by_group;
    }
    return anywhere;
  }

 private:
  // What the busiest rank may have over the mean, or over what it would have if experts stood anywhere, so that those
  // of a group stay on one node: their tokens cross fewer links, and all wait for that rank.
  static constexpr double kWorthStaying = 1.1, kAboutAsGood = 1.05;

  Placed place_groups(std::span<const Item> experts) const {
    Placed placed{.by_groups = true};
    const int groups_of_node = options_.num_groups / options_.num_nodes,
              of_node = options_.num_ranks / options_.num_nodes;
    const auto group_size = std::ssize(load_) / options_.num_groups;
    std::vector<Item> groups;
    for (int group = 0; group < options_.num_groups; group++) {
      const std::span<const double> loads =
          load_.subspan(static_cast<size_t>(group * group_size), static_cast<size_t>(group_size));
      groups.push_back({group, std::accumulate(loads.begin(), loads.end(), 0.0)});
    }
    std::ranges::sort(groups, busier);
    Bins nodes(std::vector<int64_t>(static_cast<size_t>(options_.num_nodes), groups_of_node));
    nodes.pack(groups);
    nodes.refine();
    for (int node = 0; node < options_.num_nodes; node++) {
      std::vector<Item> of_groups;
      for (const Item& group : nodes.items()[static_cast<size_t>(node)])
        of_groups.insert(of_groups.end(), experts.begin() + group.expert * group_size,
                         experts.begin() + (group.expert + 1) * group_size);
      place_on(of_groups, node * of_node, of_node, placed);
    }
    return placed;
  }
  bool groups_divide() const {
    const int nodes = options_.num_nodes, groups = options_.num_groups;
    if (nodes < 2 || groups < 2 || groups % nodes != 0 || options_.num_ranks % nodes != 0 ||
        std::ssize(load_) % groups != 0)
      return false;
    const auto room_of = [&](int node) {
      const auto begin = rooms_.begin() + node * (options_.num_ranks / nodes);
      return std::accumulate(begin, begin + options_.num_ranks / nodes, int64_t{0});
    };
    for (int node = 1; node < nodes; node++)
      if (room_of(node) != room_of(0)) return false;
    return true;
  }
  void place_on(std::span<const Item> experts, int first_rank, int num_ranks, Placed& placed) const {
    const Rooms rooms(rooms_.begin() + first_rank, rooms_.begin() + first_rank + num_ranks);
    const int64_t num_slots = std::accumulate(rooms.begin(), rooms.end(), int64_t{0});
    Bins bins(rooms);
    bins.pack(replicate(experts, num_slots, num_ranks - static_cast<int>(std::ranges::count(rooms, 0))));
    bins.refine();
    placed.busiest = std::max(placed.busiest, bins.most());
    for (const std::vector<Item>& items : bins.items()) {
      std::vector<int32_t>& held = placed.ranks.emplace_back();
      for (const Item& item : items) held.push_back(item.expert);
      std::ranges::sort(held);
    }
  }

  std::span<const double> load_;
  const BalanceOptions& options_;
  const Rooms& rooms_;
};

}  // namespace

Result<ExpertPlacement> balanced_placement(const ExpertLoad& load, const BalanceOptions& options, uint32_t version) {
  if (options.num_ranks < 1 || options.num_redundant < 0 || options.num_nodes < 1)
    return make_error(ErrorCode::kInvalidArgument, "{} more slots than experts, on {} ranks of {} nodes",
                      options.num_redundant, options.num_ranks, options.num_nodes);
  constexpr size_t kMostSlots = ExpertPlacement::kMostSlots, kMostLayers = ExpertPlacement::kMostLayers;
  if (load.layers.size() > kMostLayers || load.num_experts() + static_cast<size_t>(options.num_redundant) > kMostSlots)
    return make_error(ErrorCode::kInvalidArgument, "{} layers of {} experts and {} slots more; at most {} of {} in all",
                      load.layers.size(), load.num_experts(), options.num_redundant, kMostLayers, kMostSlots);
  std::vector<Layer> layers;
  for (size_t layer = 0; layer < load.layers.size(); layer++) {
    const Rooms rooms =
        even_rooms(std::ssize(load.layers[layer]) + options.num_redundant, options.num_ranks, static_cast<int>(layer));
    layers.push_back(LayerBalance(load.layers[layer], options, rooms).place().ranks);
    for (size_t rank = 0; rank < rooms.size(); rank++)
      layers.back()[rank].resize(static_cast<size_t>(rooms[rank]), ExpertPlacement::kSpare);
  }
  return ExpertPlacement::create({.num_layers = static_cast<int>(load.layers.size()),
                                  .num_experts = static_cast<int>(load.num_experts()),
                                  .num_ranks = options.num_ranks},
                                 version, layers);
}

namespace {

// What the busiest rank has to do if all copies of an expert get as much.
double busiest_of(const Layer& ranks, std::span<const double> load) {
  std::vector<int> copies(load.size());
  for (const std::vector<int32_t>& slots : ranks)
    for (const int32_t expert : slots)
      if (expert != ExpertPlacement::kSpare) copies[static_cast<size_t>(expert)]++;
  double busiest = 0;
  for (const std::vector<int32_t>& slots : ranks) {
    double rows = 0;
    for (const int32_t expert : slots)
      if (expert != ExpertPlacement::kSpare)
        rows += load[static_cast<size_t>(expert)] / copies[static_cast<size_t>(expert)];
    busiest = std::max(busiest, rows);
  }
  return busiest;
}

size_t num_shared(const std::vector<int32_t>& slots, const std::vector<int32_t>& experts) {
  return static_cast<size_t>(
      std::ranges::count_if(experts, [&](int32_t expert) { return std::ranges::find(slots, expert) != slots.end(); }));
}

// The experts that some rank is to hold go to that of as many slots which holds the most of them already.
void keep_at_home(const Layer& now, size_t first_rank, size_t num_ranks, Layer& next) {
  struct Pair {
    size_t num_kept, rank, from;
  };
  std::vector<Pair> pairs;
  for (size_t rank = first_rank; rank < first_rank + num_ranks; rank++)
    for (size_t from = first_rank; from < first_rank + num_ranks; from++)
      if (next[rank].size() == next[from].size()) pairs.push_back({num_shared(now[rank], next[from]), rank, from});
  std::ranges::stable_sort(pairs, std::greater<>(), &Pair::num_kept);
  Layer placed(num_ranks);
  std::vector<bool> has(num_ranks), is_given(num_ranks);
  for (const auto& [num_kept, rank, from] : pairs) {
    if (has[rank - first_rank] || is_given[from - first_rank]) continue;
    has[rank - first_rank] = is_given[from - first_rank] = true;
    placed[rank - first_rank] = next[from];
  }
  std::ranges::move(placed, next.begin() + static_cast<std::ptrdiff_t>(first_rank));
}

// Into the slots of a rank: what stays keeps its slot.
std::vector<int32_t> in_slots(const std::vector<int32_t>& now, const std::vector<int32_t>& experts) {
  std::vector<int32_t> slots = now;
  std::vector<int32_t> arriving;
  for (const int32_t expert : experts)
    if (std::ranges::find(now, expert) == now.end()) arriving.push_back(expert);
  auto next = arriving.begin();
  for (int32_t& held : slots) {
    if (held == ExpertPlacement::kSpare || std::ranges::find(experts, held) != experts.end()) continue;
    held = next == arriving.end() ? ExpertPlacement::kSpare : *next++;
  }
  CHECK(next == arriving.end());
  return slots;
}

}  // namespace

Result<ExpertPlacement> rebalanced_placement(const ExpertPlacement& now, const ExpertLoad& load,
                                             const BalanceOptions& options) {
  constexpr double kWorthMoving = 1.05;  // the busiest rank's rows, over what they would be
  const auto& shape = now.shape();
  if (std::ssize(load.layers) != shape.num_layers || std::ssize(load.layers[0]) != shape.num_experts ||
      options.num_ranks != shape.num_ranks)
    return make_error(ErrorCode::kInvalidArgument, "a load of {} layers for a placement of {}", load.layers.size(),
                      shape.num_layers);
  std::vector<Layer> layers = layers_of(now);
  for (size_t layer = 0; layer < layers.size(); layer++) {
    Rooms rooms;
    for (const std::vector<int32_t>& slots : layers[layer])
      rooms.push_back(std::ssize(slots) - std::ranges::count(slots, ExpertPlacement::kSpare));
    LayerBalance::Placed placed = LayerBalance(load.layers[layer], options, rooms).place();
    if (busiest_of(layers[layer], load.layers[layer]) <= kWorthMoving * placed.busiest) continue;
    const size_t at_once = rooms.size() / static_cast<size_t>(placed.by_groups ? options.num_nodes : 1);
    for (size_t rank = 0; rank < rooms.size(); rank += at_once)
      keep_at_home(layers[layer], rank, at_once, placed.ranks);
    for (size_t rank = 0; rank < rooms.size(); rank++)
      layers[layer][rank] = in_slots(layers[layer][rank], placed.ranks[rank]);
  }
  return ExpertPlacement::create(shape, now.version() + 1, layers);
}

std::vector<double> busiest_rows(const ExpertPlacement& placement, const ExpertLoad& load) {
  std::vector<double> rows;
  const std::vector<Layer> layers = layers_of(placement);
  for (size_t layer = 0; layer < layers.size(); layer++) rows.push_back(busiest_of(layers[layer], load.layers[layer]));
  return rows;
}

double imbalance_of(const ExpertPlacement& placement, const ExpertLoad& load, std::span<const int> nodes) {
  const auto& shape = placement.shape();
  std::vector<std::vector<double>> rows(load.layers.size(), std::vector<double>(static_cast<size_t>(shape.num_ranks)));
  double busiest = 0, all = 0;
  for (int home = 0; home < shape.num_ranks; home++) {
    const CopyChoice choice(placement, home, nodes);
    for (int layer = 0; layer < shape.num_layers; layer++) {
      for (int expert = 0; expert < shape.num_experts; expert++) {
        const std::span<const ExpertCopy> copies = choice.copies(layer, expert);
        const double each =
            load.layers[static_cast<size_t>(layer)][static_cast<size_t>(expert)] / static_cast<double>(copies.size());
        for (const ExpertCopy& copy : copies) rows[static_cast<size_t>(layer)][copy.rank] += each;
      }
    }
  }
  for (const std::vector<double>& of_layer : rows) {
    busiest += std::ranges::max(of_layer);
    all += std::accumulate(of_layer.begin(), of_layer.end(), 0.0);
  }
  return all > 0 ? busiest * shape.num_ranks / all : 1;
}

}  // namespace cachalot
