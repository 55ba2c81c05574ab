#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "comm/transport.h"
#include "config/options.h"

// A change of epoch, as the ranks of a group see it. Who lives is decided elsewhere; where the experts are follows from
// what the living hold.
namespace cachalot {

struct EpochMember {
  int rank = 0;
  uint64_t process = 0;   // drawn by a process that takes a lost one's place; 0: it is there from the start
  std::string name = {};  // for errors; empty: as before
};

// One membership of the group.
struct Epoch {
  uint32_t number = 1;
  std::vector<EpochMember> members;  // by rank
  std::vector<int> nodes = {};       // of each rank of the group, numbered; empty: as before

  std::vector<int> ranks() const;
};

// What a rank does in an epoch. A replica of which a rank is missing cannot step: its others stay for the sake of their
// experts, each as if it led a replica of its own, without requests. Where experts are missing no replica can.
struct EpochRoles {
  bool serves = true;             // all ranks of this one's replica are there, and all experts
  std::vector<int> tensor_group;  // of this rank, the leader first
  std::vector<int> speakers;      // who agrees on rounds
};
EpochRoles roles_in_epoch(const ParallelOptions& parallel, std::span<const int> living, bool has_experts = true);

// Where a rank learns of the next epoch.
class Epochs {
 public:
  struct Next {
    Epoch epoch;
    std::vector<std::unique_ptr<Transport>> transports;  // to all of its members
  };

  virtual ~Epochs() = default;
  // Of a rank whose epoch is over, and why. Waits for the next one with this rank, and connects its members. Errors:
  // the epoch that was to come is over as well (ends_epoch()); there is none for this rank, which ends.
  virtual Result<Next> next(const Error& why) = 0;
  // This rank is in the epoch that next() gave last, with all of its members, and holds its part of this placement of
  // the experts.
  virtual void entered(uint32_t /*placement_version*/, uint64_t /*num_steps*/) {}
  // Whether a round may begin: whoever decides still stands behind this epoch. Else the others may be in another one,
  // of which next() will tell.
  virtual bool may_step() { return true; }
  // From now on next() gives an error. Any thread; calls back nobody.
  virtual void cancel() = 0;
};

}  // namespace cachalot
