#pragma once

#include <atomic>
#include <chrono>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "base/error.h"
#include "comm/expert_exchange.h"
#include "engine/expert_slots.h"
#include "engine/neighbours.h"
#include "placement/moves.h"
#include "weights/weight_catalog.h"

namespace cachalot {

// Brings this rank the experts of a next placement while it computes by the one before: a thread of its own, of the
// lowest priority, that works at most a twentieth of the time. What it writes is no slot's memory: what spare slots and
// buffers have. Then, between two steps, slots exchange their memory for that.
//
// An expert comes from a slot of this rank, else from the memory of a rank on this node, else from the model's files.
// All public calls are the engine's thread's.
class ExpertMover {
 public:
  enum class Progress { kGoesOn, kDone, kFailed };
  struct Counts {
    int64_t from_ranks = 0, from_files = 0;  // experts
    size_t bytes = 0;
  };

  // Borrows all. cores: of this rank; empty: any.
  ExpertMover(ExpertSlots& slots, ExpertExchange& exchange, const WeightCatalog& files, const Neighbours& neighbours,
              std::vector<int> cores);

  void start(SharedPlacement next);
  Progress progress() const { return progress_.load(std::memory_order_acquire); }
  const Error& error() const { return *error_; }  // of kFailed
  // kDone: from now on the rank computes by the next placement.
  Counts apply();
  void drop();  // of what was brought, nothing is used

 private:
  using Room = ExpertSlots::Room;
  struct Brought {
    ExpertMove move;
    Room room;  // its memory goes to the slot, and the slot's to it
    ExpertWeights weights;
  };

  void run(const std::stop_token& stop);
  Status bring(const ExpertMove& move);
  Result<Room> take_room(const ExpertMove& move, size_t bytes);
  bool copy_from_ranks(const ExpertMove& move, const ExpertWeights& to);
  void rest(const std::stop_token& stop);

  ExpertSlots& slots_;
  ExpertExchange& exchange_;
  const WeightCatalog& files_;
  const Neighbours& neighbours_;
  const std::vector<int> cores_;
  Device device_;                          // one thread: this
  std::chrono::nanoseconds rested_at_{0};  // CPU time of the thread when it rested last

  // Of a move.
  SharedPlacement next_;
  std::vector<Room> free_;
  std::vector<Brought> brought_;
  std::optional<CopyChoice> choice_;
  Counts counts_;
  std::optional<Error> error_;
  std::atomic<Progress> progress_{Progress::kGoesOn};
  std::jthread thread_;  // the last member: it uses the others
};

}  // namespace cachalot
