#pragma once

#include <atomic>
#include <chrono>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "base/error.h"
#include "comm/expert_exchange.h"
#include "engine/neighbours.h"
#include "model/deepseek.h"
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
  ExpertMover(DeepseekModel& model, ExpertExchange& exchange, const WeightCatalog& files, const Neighbours& neighbours,
              std::vector<int> cores);

  void start(SharedPlacement next);
  Progress progress() const { return progress_.load(std::memory_order_acquire); }
  const Error& error() const { return *error_; }  // of kFailed
  // kDone: from now on the rank computes by the next placement.
  Counts apply();
  void drop();  // of what was brought, nothing is used

 private:
  // Memory for an expert: a slot's or a buffer's.
  struct Room {
    PackedMatrix *gate_up = nullptr, *down = nullptr;
    std::byte* data() const { return const_cast<std::byte*>(gate_up->data); }  // the model's own
  };
  struct Brought {
    Room slot, room;  // the room's memory goes to the slot, and the slot's to the room
    ExpertWeights weights;
  };

  Room slot_room(int layer, int slot);
  MoeWeights& moe_layer(int layer) { return *model_.weights().layers[static_cast<size_t>(layers_[layer])].moe; }
  void run(const std::stop_token& stop);
  Status bring(const ExpertMove& move);
  Result<Room> take_room(const ExpertMove& move, size_t bytes);
  bool copy_from_ranks(const ExpertMove& move, const ExpertWeights& to);
  void rest(const std::stop_token& stop);

  DeepseekModel& model_;
  ExpertExchange& exchange_;
  const WeightCatalog& files_;
  const Neighbours& neighbours_;
  const std::vector<int> cores_;
  Device device_;                                       // one thread: this
  std::vector<int> layers_;                             // the model's, of those with experts
  std::unordered_map<const std::byte*, size_t> bytes_;  // of each room, by where it begins
  std::chrono::nanoseconds rested_at_{0};               // CPU time of the thread when it rested last

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
