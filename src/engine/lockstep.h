#pragma once

#include <cstdint>
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
  uint64_t num_agreements() const { return num_agreements_; }

 private:
  struct Word {  // of a leader to another
    uint64_t agreement;
    int32_t num_rows, num_steps;
    uint32_t leaving, reserved;
  };
  void listen();
  Status check(const Word& word, const ReceiveOp& received) const;

  Mesh& mesh_;
  const RoundLimits limits_;
  std::vector<ReceiveOp> receives_;  // a leader: one word of each other leader; else the round of the leader
  std::vector<SendOp> word_sends_, round_sends_;
  Word own_{};
  std::vector<Word> words_;
  std::vector<std::byte> round_bytes_;
  Round round_;
  bool listening_ = false;  // receives_ are under way
  uint64_t num_agreements_ = 0;
};

}  // namespace cachalot
