#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "comm/mesh.h"
#include "config/options.h"
#include "engine/round.h"

namespace cachalot {

// What a replica brings to the next round.
struct Wish {
  int num_rows = 0;   // of the first step
  int num_steps = 1;  // more than one only without prompt tokens
  bool leaving = false;
};

// What the replicas agreed on: the same on each.
struct Agreement {
  int64_t num_rows = 0;  // of all replicas' first steps; 0: there is nothing to do
  int num_steps = 0;     // the fewest that a replica with rows wishes
  bool all_leave = false;
};

// A leader's word to every other leader, with which a round begins.
struct LeaderWord {
  uint64_t agreement;
  int32_t num_rows, num_steps;
  uint32_t leaving, reserved;
};

// What follows from the words: a state machine, which neither sends nor waits.
class Agreements {
 public:
  explicit Agreements(const RoundLimits& limits) : limits_(limits) {}  // of the words of others

  LeaderWord begin(const Wish& wish);
  // What came from another leader: `size` bytes.
  Status hear(const LeaderWord& word, size_t size, const std::string& leader);
  Agreement end();  // when all were heard
  // The round that a leader announced to its ranks; an error is also the leader's: a round beyond the limits.
  Status take_announced(std::span<const std::byte> bytes, Round& round);
  uint64_t num_made() const { return num_made_; }

 private:
  void count(const LeaderWord& word);

  const RoundLimits limits_;
  Agreement agreement_;
  uint64_t num_made_ = 0;
};

// How ranks keep in step. Each round begins with an agreement among the replicas' leaders (their tp_rank 0), one
// message a pair; then each leader tells its own ranks the round. Nobody has tokens: nobody says anything, and all
// sleep. A leader that gets work says so; its word wakes the other leaders, who join the agreement with zero rows, and
// wake their ranks.
//
// Used by one thread, the engine's, but for wake(). Errors are the mesh's, or tell what a peer says against the limits.
class Lockstep {
 public:
  // limits: of this rank's rounds, and of the words of other leaders.
  Lockstep(Mesh& mesh, const ParallelOptions& parallel, const RoundLimits& limits);

  // Of a leader. Sleeps until another leader has begun an agreement (true) or wake() was called (false).
  Result<bool> wait_for_others();
  void wake() { mesh_.wake(); }  // any thread
  Result<Agreement> agree(const Wish& wish);
  Status announce(const Round& round);

  // Of the other ranks of a replica. Sleeps until the leader announces a round; it is valid until the next call. The
  // error may also be the leader's: a round beyond the limits.
  Result<Round*> next_round();

  // That a leader took part in, and that the other ranks were told of.
  uint64_t num_agreements() const { return agreements_.num_made(); }

 private:
  void listen();

  Mesh& mesh_;
  Agreements agreements_;
  std::vector<ReceiveOp> receives_;  // a leader: one word of each other leader; else the round of the leader
  std::vector<SendOp> word_sends_, round_sends_;
  LeaderWord own_{};
  std::vector<LeaderWord> words_;
  std::vector<std::byte> round_bytes_;
  Round round_;
  bool listening_ = false;  // receives_ are under way
};

}  // namespace cachalot
