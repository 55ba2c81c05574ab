#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "agents/epoch.h"
#include "base/error.h"

// What an agent's part of the log must not forget: its term, its vote, and its entries. It is one file of a few KB,
// which is replaced as a whole:
//
//   u32 magic | u16 version | u16 0 | u32 length | u64 hash of what follows | LogState [length]
namespace cachalot::agents {

// Who takes part in the log: the agent of a server, or a witness. An agent whose state is gone comes with another id.
struct Voter {
  int id = 0;  // random
  int server = 0;
  bool votes = true;  // false: it is still catching up

  bool operator==(const Voter&) const = default;
  static auto fields(auto& self) { return std::tie(self.id, self.server, self.votes); }
};

// What all entries up to `index` have led to, in place of these.
struct LogBase {
  int64_t index = 0, term = 0;
  std::vector<Voter> voters;
  Epoch epoch;

  static constexpr int kType = 1;
  bool operator==(const LogBase&) const = default;
  static auto fields(auto& self) { return std::tie(self.index, self.term, self.voters, self.epoch); }
};

struct LogEntry {
  int64_t term = 0;
  int type = 0;  // the library's: an epoch, a voter that comes or goes
  int id = 0;
  std::string data;  // an Epoch, or a Voter

  bool operator==(const LogEntry&) const = default;
  static auto fields(auto& self) { return std::tie(self.term, self.type, self.id, self.data); }
};

// Which log this is. Of two the greater holds: the generation counts losses that a person has confirmed.
struct LogName {
  uint32_t generation = 0;
  uint64_t group = 0;  // random; 0: none yet

  auto operator<=>(const LogName&) const = default;
  static auto fields(auto& self) { return std::tie(self.generation, self.group); }
};

struct LogState {
  LogName name;
  int voter = 0, server = 0;
  uint64_t made_for = 0;  // the group to which this voter came; 0: it was there when its group began
  int64_t term = 0;
  int vote = -1;
  LogBase base;
  std::vector<LogEntry> entries;

  static constexpr int kType = 2;
  bool is_blank() const { return name.group == 0; }
  bool operator==(const LogState&) const = default;
  static auto fields(auto& self) {
    return std::tie(self.name, self.voter, self.server, self.made_for, self.term, self.vote, self.base, self.entries);
  }
};

std::string encode_state(const LogState& state);
// Errors say in which way the bytes are no state.
Result<LogState> decode_state(std::string_view bytes);

}  // namespace cachalot::agents
