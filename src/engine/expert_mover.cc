#include "engine/expert_mover.h"

#include <sched.h>
#include <sys/resource.h>

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <ctime>
#include <mutex>
#include <utility>

#include "base/math.h"

namespace cachalot {
namespace {

constexpr int kRest = 19;  // of the time that work took
constexpr size_t kAlignment = 64;

size_t room_for(const ExpertWeights& weights) {
  return round_up(weights.gate_up.shape.bytes(), kAlignment) + weights.down.shape.bytes();
}

std::chrono::nanoseconds cpu_time_of_thread() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return std::chrono::seconds(now.tv_sec) + std::chrono::nanoseconds(now.tv_nsec);
}

// On any of the rank's cores, of which it gets a seventieth where others want them. (SCHED_IDLE would never be through
// on a machine that is busy.)
void step_back(const std::vector<int>& cores) {
  cpu_set_t set;
  CPU_ZERO(&set);
  for (const int core : cores) CPU_SET(core, &set);
  if (!cores.empty()) sched_setaffinity(0, sizeof set, &set);
  setpriority(PRIO_PROCESS, 0, 19);  // of this thread alone
}

}  // namespace

ExpertMover::ExpertMover(DeepseekModel& model, ExpertExchange& exchange, const WeightCatalog& files,
                         const Neighbours& neighbours, std::vector<int> cores)
    : model_(model),
      exchange_(exchange),
      files_(files),
      neighbours_(neighbours),
      cores_(std::move(cores)),
      device_(ThreadPoolOptions{}) {
  for (int layer = 0; layer < model.config().num_layers; layer++)
    if (model.config().is_moe_layer(layer)) layers_.push_back(layer);
  const auto note = [&](const PackedMatrix& gate_up, const PackedMatrix& down) {
    bytes_[gate_up.data] = static_cast<size_t>(down.data - gate_up.data) + down.shape.bytes();
  };
  for (int layer = 0; layer < std::ssize(layers_); layer++)
    for (size_t slot = 0; slot < moe_layer(layer).down.size(); slot++)
      note(moe_layer(layer).gate_up[slot], moe_layer(layer).down[slot]);
  for (const ExpertWeights& buffer : model.weights().move_buffers) note(buffer.gate_up, buffer.down);
}

ExpertMover::Room ExpertMover::slot_room(int layer, int slot) {
  MoeWeights& weights = moe_layer(layer);
  return {&weights.gate_up[static_cast<size_t>(slot)], &weights.down[static_cast<size_t>(slot)]};
}

void ExpertMover::start(SharedPlacement next) {
  drop();
  next_ = std::move(next);
  const ExpertPlacement& now = exchange_.placement();
  for (int layer = 0; layer < std::ssize(layers_); layer++) {
    const std::span<const int32_t> held = exchange_.own_slots(layer);
    for (int slot = 0; slot < std::ssize(held); slot++)
      if (held[static_cast<size_t>(slot)] == ExpertPlacement::kSpare) free_.push_back(slot_room(layer, slot));
  }
  for (ExpertWeights& buffer : model_.weights().move_buffers) free_.push_back({&buffer.gate_up, &buffer.down});
  CHECK(next_->shape() == now.shape());
  thread_ = std::jthread([this](const std::stop_token& stop) { run(stop); });
}

void ExpertMover::drop() {
  thread_ = {};  // it has ended
  next_ = nullptr;
  free_.clear();
  brought_.clear();
  choice_.reset();
  counts_ = {};
  error_.reset();
  progress_ = Progress::kGoesOn;
}

void ExpertMover::run(const std::stop_token& stop) {
  step_back(cores_);
  rested_at_ = cpu_time_of_thread();
  for (const ExpertMove& move : moves_of(exchange_.placement(), *next_, model_.settings().ep_rank)) {
    if (stop.stop_requested()) return;
    if (const Status status = bring(move); !status) {
      error_ = status.error();
      progress_.store(Progress::kFailed, std::memory_order_release);
      return;
    }
    rest(stop);
  }
  choice_.emplace(exchange_.choice_of(*next_));
  progress_.store(Progress::kDone, std::memory_order_release);
}

void ExpertMover::rest(const std::stop_token& stop) {
  const std::chrono::nanoseconds worked = cpu_time_of_thread() - std::exchange(rested_at_, cpu_time_of_thread());
  std::mutex mutex;
  std::unique_lock lock(mutex);
  std::condition_variable_any().wait_for(lock, stop, worked * kRest, [] { return false; });
}

// The slot's own, if nothing is in it; else the smallest that is free.
Result<ExpertMover::Room> ExpertMover::take_room(const ExpertMove& move, size_t bytes) {
  const Room own = slot_room(move.layer, move.slot);
  auto best = free_.end();
  for (auto room = free_.begin(); room != free_.end(); ++room) {
    if (bytes_.at(room->data()) < bytes) continue;
    if (room->gate_up == own.gate_up) {
      best = room;
      break;
    }
    if (best == free_.end() || bytes_.at(room->data()) < bytes_.at(best->data())) best = room;
  }
  if (best == free_.end())
    return make_error(ErrorCode::kOutOfMemory, "no memory of {} bytes is free on this rank", bytes);
  const Room room = *best;
  free_.erase(best);
  return room;
}

Status ExpertMover::bring(const ExpertMove& move) {
  const int layer = layers_[static_cast<size_t>(move.layer)];
  const ModelConfig& config = model_.config();
  const ModelSettings& settings = model_.settings();
  const auto named = [&](const Error& error) {
    return make_error(error.code, "expert {} of layer {}: {}", move.expert, layer, error.message);
  };
  WeightPacker planner = WeightPacker::planner(settings);
  const auto planned = load_expert(config, settings, files_, planner, layer, move.expert);
  if (!planned) return named(planned.error());
  if (const MoeWeights& others = moe_layer(move.layer); planned->input_group != others.input_group)
    return std::unexpected(experts_differ(layer, {exchange_.own_slots(move.layer)[0], others.input_group},
                                          {move.expert, planned->input_group}));
  const size_t bytes = room_for(planned->weights);
  const auto room = take_room(move, bytes);
  if (!room) return named(room.error());
  ExpertWeights weights = planned->weights;
  weights.gate_up.data = room->data();
  weights.down.data = room->data() + round_up(weights.gate_up.shape.bytes(), kAlignment);
  if (copy_from_ranks(move, weights)) {
    counts_.from_ranks++;
  } else {
    WeightPacker packer = WeightPacker::packer(settings, device_, View<std::byte, 1>(room->data(), bytes), {});
    const auto loaded = load_expert(config, settings, files_, packer, layer, move.expert);
    if (!loaded) return named(loaded.error());
    CHECK(loaded->weights.down.data == weights.down.data);
    counts_.from_files++;
  }
  counts_.bytes += bytes;
  brought_.push_back({slot_room(move.layer, move.slot), *room, weights});
  return {};
}

bool ExpertMover::copy_from_ranks(const ExpertMove& move, const ExpertWeights& to) {
  const ExpertPlacement& now = exchange_.placement();
  const auto slot_on = [&](int rank) {
    const std::span<const int32_t> slots = now.slots(move.layer, rank);
    const auto found = std::ranges::find(slots, move.expert);
    return found == slots.end() ? -1 : static_cast<int>(found - slots.begin());
  };
  for (const int rank : neighbours_.ranks())
    if (const int slot = slot_on(rank); slot >= 0 && neighbours_.copy(rank, move.layer, slot, to)) return true;
  return false;
}

ExpertMover::Counts ExpertMover::apply() {
  CHECK(progress() == Progress::kDone);
  for (const Brought& brought : brought_) {
    const ExpertWeights old{*brought.slot.gate_up, *brought.slot.down};
    *brought.slot.gate_up = brought.weights.gate_up;
    *brought.slot.down = brought.weights.down;
    if (brought.room.gate_up == brought.slot.gate_up) continue;
    *brought.room.gate_up = old.gate_up;
    *brought.room.down = old.down;
  }
  exchange_.set_placement(next_, std::move(*choice_));
  const Counts counts = counts_;
  drop();
  return counts;
}

}  // namespace cachalot
