#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
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

  // options: of the rank's ways; own: the rank, without addresses. on_card hears its card, another one for each epoch;
  // none as long as the rank cannot be found. Called by the constructor and by next().
  RankEpochs(WorldOptions options, Member own, std::function<void(std::string card)> on_card);
  // What ends with an epoch; borrowed.
  void attach(Mesh& mesh, Lockstep* lockstep);

  void decide(Decision decision);
  void stand_behind_until(std::chrono::steady_clock::time_point time);  // whatever epoch this is

  Result<Next> next(const Error& why) override;
  bool may_step() override;
  void cancel() override;

 private:
  void open_ways();
  // Whether a decision is there that has this rank, as it can be found now.
  bool is_seated() const;
  static bool keeps_all(const Decision& before, const Decision& now);

  const WorldOptions options_;
  const Member own_;
  const std::function<void(std::string card)> on_card_;
  std::optional<RankWays> ways_;  // the engine's thread's

  mutable std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  Mesh* mesh_ = nullptr;
  Lockstep* lockstep_ = nullptr;
  std::string card_;
  Decision now_, latest_;  // the epoch that next() gave last, and the newest
  std::chrono::steady_clock::time_point stands_until_ = std::chrono::steady_clock::time_point::max();
  bool is_cancelled_ = false;
};

}  // namespace cachalot
