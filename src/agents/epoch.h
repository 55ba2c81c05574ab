#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <tuple>
#include <vector>

// The nouns of a group whose agents agree on epochs: what an agent tells its ranks, and what they tell it. What travels
// lists its `fields`, for comm/membership/wire.h.
namespace cachalot::agents {

// A process that takes part in an epoch. It is known by a random id: a rank that is started anew is another process,
// whatever its number.
struct EpochMember {
  uint64_t process = 0;
  int rank = 0;
  int server = 0;  // whose agent is its parent
  // What the others need to reach it in this epoch, as it has said itself; agents do not read it. If it is another one
  // than the process has now, the process is through with the epoch before that began.
  std::string card;

  bool operator==(const EpochMember&) const = default;
  static auto fields(auto& self) { return std::tie(self.process, self.rank, self.server, self.card); }
};

// Who steps together. The agents decide one after the other; whatever has a lower number is over.
struct Epoch {
  // The next one's is higher by one. The upper byte counts how often a person has confirmed a loss (`confirm-lost`):
  // what was decided behind that person's back stays below.
  uint32_t number = 0;
  uint32_t placement_version = 0;
  std::vector<EpochMember> members;  // by rank
  std::vector<int> given_up;         // servers that nobody waits for until they are back, in order

  static constexpr int kGenerationShift = 24;
  uint32_t generation() const { return number >> kGenerationShift; }
  const EpochMember* member(uint64_t process) const {
    for (const EpochMember& one : members)
      if (one.process == process) return &one;
    return nullptr;
  }
  bool operator==(const Epoch&) const = default;
  static auto fields(auto& self) { return std::tie(self.number, self.placement_version, self.members, self.given_up); }
};

// What an agent tells each of its ranks: at once when an epoch is decided, and with every new lease. A rank leaves what
// it was in before it obeys. One that is no member of the epoch drops its requests, keeps its weights, and waits.
struct Order {
  Epoch epoch;
  // Rounds may begin until then (steady clock, of this node). Behind it the others may have gone on without this rank.
  std::chrono::steady_clock::time_point serve_until;
};

enum class RankPhase : uint8_t {
  kLoading,
  kReady,   // loaded: it can take part
  kMember,  // in the epoch that it names, with all of its members
};

// What a rank tells its agent, several times within the failure timeout.
struct RankReport {
  uint64_t process = 0;
  int rank = 0;
  RankPhase phase = RankPhase::kLoading;
  uint32_t epoch = 0;              // the newest that it has entered, or that it is through with if it is no member
  uint64_t committed = 0;          // its last committed round
  uint32_t placement_version = 0;  // the newest of which it has loaded all of its slots
  std::string card;                // another one for each epoch; empty: it cannot be found yet

  bool operator==(const RankReport&) const = default;
  static auto fields(auto& self) {
    return std::tie(self.process, self.rank, self.phase, self.epoch, self.committed, self.placement_version, self.card);
  }
};

}  // namespace cachalot::agents
