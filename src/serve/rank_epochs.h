#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "comm/world.h"
#include "engine/epoch.h"
#include "engine/lockstep.h"

namespace cachalot {

// A rank's part in changes of epoch. While one lasts, the rank is ready to be found in the next: it has its ways open,
// and a card that says so, which whoever decides puts into the decision. When that comes, the epoch before ends: at
// once if somebody is missing, else between two rounds.
//
// next() is of the engine's thread; what is said from outside may come from any.
class RankEpochs : public Epochs {
 public:
  struct Seat {
    int rank = 0;
    uint64_t process = 0;
    std::string card;
  };
  struct Decision {
    uint32_t number = 0;
    std::vector<Seat> seats;  // by rank
  };

  // How this rank stands, for whoever decides.
  struct Standing {
    std::string card;        // another one for each epoch; none as long as the rank cannot be found
    bool is_ready = false;   // it has loaded, and could be in an epoch
    bool is_member = false;  // of `epoch`, with all of its members; else it is through with that one, or never came in
    uint32_t epoch = 0, placement_version = 0;
    uint64_t num_steps = 0;  // that it had taken when it entered
  };

  // options: of the rank's ways; own: the rank, without addresses. on_change: called by the constructor, next() and
  // entered().
  RankEpochs(WorldOptions options, Member own, std::function<void(const Standing&)> on_change);
  // What ends with an epoch; borrowed.
  void attach(Mesh& mesh, Lockstep* lockstep);

  void decide(Decision decision);
  void stand_behind_until(std::chrono::steady_clock::time_point time);  // whatever epoch this is

  Result<Next> next(const Error& why) override;
  void entered(uint32_t placement_version, uint64_t num_steps) override;
  bool may_step() override;
  void cancel() override;
  std::vector<Member> members() const;  // of the last epoch that next() gave

 private:
  void open_ways();
  // Of this rank, in a decision that next() has not given yet.
  const Seat* new_seat() const;
  Result<Decision> await_decision(const Error& why);
  void tell(uint32_t epoch);
  static bool keeps_all(const Decision& before, const Decision& now);

  const WorldOptions options_;
  const Member own_;
  const std::function<void(const Standing&)> on_change_;
  // The engine's thread's.
  std::optional<RankWays> ways_;
  Standing standing_;

  mutable std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  Mesh* mesh_ = nullptr;
  Lockstep* lockstep_ = nullptr;
  std::string card_;
  std::vector<Member> members_;
  Decision now_, latest_;        // the epoch that next() gave last, and the newest
  std::stop_source connecting_;  // what next() is at, for an epoch that may be over by then
  std::chrono::steady_clock::time_point stands_until_ = std::chrono::steady_clock::time_point::max();
  bool is_cancelled_ = false;
};

}  // namespace cachalot
