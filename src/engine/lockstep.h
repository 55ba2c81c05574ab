#pragma once

#include <atomic>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "comm/mesh.h"
#include "config/options.h"
#include "engine/epoch.h"
#include "engine/round.h"

namespace cachalot {

// What a replica brings to the next round.
struct Wish {
  int num_rows = 0;   // of the first step
  int num_steps = 1;  // more than one only without prompt tokens
  bool leaving = false;
  bool ends_epoch = false;  // the group is to change, before the next round
};

// What the replicas agreed on: the same on each.
struct Agreement {
  int64_t num_rows = 0;  // of all replicas' first steps; 0: there is nothing to do
  int num_steps = 0;     // the fewest that a replica with rows wishes
  bool all_leave = false;
  bool epoch_ends = false;  // somebody says so: there is no round
};

// A leader's word to every other leader, with which a round begins.
struct LeaderWord {
  uint64_t agreement;
  static constexpr uint32_t kLeaving = 1, kEndsEpoch = 2;
  int32_t num_rows, num_steps;
  uint32_t flags, epoch;
};

// What follows from the words: a state machine, which neither sends nor waits. What is said in another epoch is passed
// over, and counted.
class Agreements {
 public:
  // limits: of the words of others.
  Agreements(const RoundLimits& limits, uint32_t epoch) : limits_(limits), epoch_(epoch) {}
  // Counts them anew.
  void begin_epoch(uint32_t epoch, const RoundLimits& limits);

  LeaderWord begin(const Wish& wish);
  // What came from another leader: `size` bytes. False: in another epoch; its word is still to come.
  Result<bool> hear(const LeaderWord& word, size_t size, const std::string& leader);
  Agreement end();  // when all were heard
  // The round that a leader announced to its ranks; an error is also the leader's: a round beyond the limits. False: of
  // another epoch.
  Result<bool> take_announced(std::span<const std::byte> bytes, Round& round);
  uint64_t num_made() const { return num_made_before_ + num_made_; }
  uint64_t num_foreign() const { return num_foreign_; }  // that were passed over

 private:
  void count(const LeaderWord& word);

  RoundLimits limits_;
  uint32_t epoch_;
  Agreement agreement_;
  uint64_t num_made_ = 0, num_made_before_ = 0;  // in this epoch; before it
  uint64_t num_foreign_ = 0;
};

// How ranks keep in step. Each round begins with an agreement among the replicas' leaders (their tp_rank 0), one
// message a pair; then each leader tells its own ranks the round. Nobody has tokens: nobody says anything, and all
// sleep. A leader that gets work says so; its word wakes the other leaders, who join the agreement with zero rows, and
// wake their ranks.
//
// In an epoch in which a replica lacks a rank, each of its others speaks for itself, and brings no rows.
//
// Used by one thread, the engine's, but for wake(). Errors are the mesh's, or tell what a peer says against the limits.
class Lockstep {
 public:
  // limits: of this rank's rounds, and of the words of other leaders.
  Lockstep(Mesh& mesh, const EpochRoles& roles, const RoundLimits& limits);
  // In the mesh's next epoch. limits: at most those of the beginning.
  void begin_epoch(const EpochRoles& roles, const RoundLimits& limits);

  // Of a leader. Sleeps until another leader has begun an agreement (true) or wake() was called (false).
  Result<bool> wait_for_others();
  void wake() { mesh_.wake(); }  // any thread
  // The error is also that the epoch ends here (Wish::ends_epoch).
  Result<Agreement> agree(Wish wish);
  Status announce(const Round& round);
  // Ends this epoch before the next round: all ranks then look for the next one, as if one were lost. Any thread.
  void end_epoch(uint32_t epoch);
  // What was asked for is still to be said: the next agreement is to begin.
  bool wants_to_end_epoch() const { return epoch_to_end_.load() == mesh_.epoch(); }

  // Of the other ranks of a replica. Sleeps until the leader announces a round; it is valid until the next call. The
  // error may also be the leader's: a round beyond the limits.
  Result<Round*> next_round();

  // That a leader took part in, and that the other ranks were told of.
  uint64_t num_agreements() const { return agreements_.num_made(); }
  // Words and rounds of another epoch, which were passed over.
  uint64_t num_foreign() const { return agreements_.num_foreign(); }

 private:
  void listen();
  void listen(size_t idx);

  void take_roles(const EpochRoles& roles);

  Mesh& mesh_;
  RoundLimits limits_;
  std::atomic<uint32_t> epoch_to_end_{0};
  Agreements agreements_;
  std::vector<ReceiveOp> receives_;  // a leader: one word of each other leader; else the round of the leader
  std::vector<SendOp> word_sends_, round_sends_;
  LeaderWord own_{};
  std::vector<LeaderWord> words_;
  std::vector<std::byte> round_bytes_;
  Round round_;
  bool is_speaker_ = true;  // takes part in agreements
  bool listening_ = false;  // receives_ are under way
};

}  // namespace cachalot
