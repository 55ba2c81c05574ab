#include "engine/expert_mover.h"

#include <sched.h>
#include <sys/resource.h>

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <ctime>
#include <mutex>
#include <utility>

namespace cachalot {
namespace {

constexpr int kRest = 19;  // of the time that work took

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

ExpertMover::ExpertMover(ExpertSlots& slots, ExpertExchange& exchange, const WeightCatalog& files,
                         const Neighbours& neighbours, std::vector<int> cores)
    : slots_(slots),
      exchange_(exchange),
      files_(files),
      neighbours_(neighbours),
      cores_(std::move(cores)),
      device_(ThreadPoolOptions{}) {}

void ExpertMover::start(SharedPlacement next) {
  drop();
  next_ = std::move(next);
  const ExpertPlacement& now = exchange_.placement();
  free_ = slots_.buffers();
  for (int layer = 0; layer < now.shape().num_layers; layer++) {
    const std::span<const int32_t> held = slots_.held(layer);
    for (int slot = 0; slot < std::ssize(held); slot++)
      if (held[static_cast<size_t>(slot)] == ExpertPlacement::kSpare) free_.push_back(slots_.room(layer, slot));
  }
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
  for (const ExpertMove& move : moves_of(exchange_.placement(), *next_, exchange_.rank())) {
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
  const Room own = slots_.room(move.layer, move.slot);
  auto best = free_.end();
  for (auto room = free_.begin(); room != free_.end(); ++room) {
    if (slots_.bytes_of(*room) < bytes) continue;
    if (*room == own) {
      best = room;
      break;
    }
    if (best == free_.end() || slots_.bytes_of(*room) < slots_.bytes_of(*best)) best = room;
  }
  if (best == free_.end())
    return make_error(ErrorCode::kOutOfMemory,
                      "expert {} of layer {} of those with experts: no memory of {} bytes is free on this rank",
                      move.expert, move.layer, bytes);
  const Room room = *best;
  free_.erase(best);
  return room;
}

Status ExpertMover::bring(const ExpertMove& move) {
  ASSIGN_OR_RETURN(const ExpertWeights planned, slots_.plan(files_, move.layer, move.expert));
  const size_t bytes = ExpertSlots::bytes_of(planned);
  ASSIGN_OR_RETURN(const Room room, take_room(move, bytes));
  const ExpertWeights weights = ExpertSlots::placed(room, planned);
  if (copy_from_ranks(move, weights)) {
    counts_.from_ranks++;
  } else {
    RETURN_IF_ERROR(slots_.read(files_, device_, move.layer, move.expert, room));
    counts_.from_files++;
  }
  counts_.bytes += bytes;
  brought_.push_back({move, room, weights});
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
    const Room slot = slots_.room(brought.move.layer, brought.move.slot);
    const ExpertWeights old{*slot.gate_up, *slot.down};
    *slot.gate_up = brought.weights.gate_up;
    *slot.down = brought.weights.down;
    if (brought.room == slot) continue;
    *brought.room.gate_up = old.gate_up;
    *brought.room.down = old.down;
  }
  for (int layer = 0; layer < next_->shape().num_layers; layer++) {
    const std::span<const int32_t> slots = next_->slots(layer, exchange_.rank());
    for (int slot = 0; slot < std::ssize(slots); slot++) slots_.hold(layer, slot, slots[static_cast<size_t>(slot)]);
  }
  exchange_.set_placement(next_, std::move(*choice_));
  const Counts counts = counts_;
  drop();
  return counts;
}

}  // namespace cachalot
