#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "base/error.h"
#include "config/options.h"
#include "placement/expert_placement.h"

// How all ranks of a group come to another placement while they run, in step. All take the same steps, so that the
// number of a step says when they meet; there each says how it stands, and the same follows on each from what all have
// said. State machines, which neither send, wait nor copy.
//
//   counting   step_interval steps, then all send their counts to rank 0                               -> planning
//   planning   rank 0 makes of them a way to a better placement; it names the first version of it       -> copying
//              or says that there is none                                                               -> counting
//   copying    each brings what it is to hold to memory that no slot uses; all have: all switch         -> planning
//              one could not: all stay where they are                                                   -> counting
namespace cachalot {

// What a rank says. Travels as it is.
struct CouncilWord {
  enum class Standing : uint32_t {
    kBusy,     // has nothing to say yet: plans, or copies
    kOffers,   // rank 0: there is a next version
    kNothing,  // rank 0: there is none
    kReady,    // all that it is to hold next is there
    kFailed,   // some of it cannot be had
  };
  uint64_t step = 0;
  uint32_t version = 0, hash = 0;            // of the placement that it runs by; the hash: its lower half
  uint32_t next_version = 0, next_hash = 0;  // of the next one, where there is one
  Standing standing = Standing::kBusy;
  uint32_t reserved = 0;
};
static_assert(std::is_trivially_copyable_v<CouncilWord> && sizeof(CouncilWord) == 32);

// What all do next.
enum class CouncilVerdict {
  kGoOn,
  kCount,   // all send rank 0 their counts
  kCopy,    // rank 0 sends all the next version, whose experts they then bring
  kSwitch,  // it holds from this step on
  kDrop,    // it is dropped
};

class Council {
 public:
  Council(const EplbOptions& options, int rank, SharedPlacement now, uint64_t step = 0);

  bool is_due(uint64_t step) const { return step >= next_step_; }
  CouncilWord word(uint64_t step) const;
  // Of all ranks, in their order, this one's among them. The error: ranks that are not in step.
  Result<CouncilVerdict> hear(std::span<const CouncilWord> words);

  // Of rank 0, once after each kCount: the versions to go through one after the other; nothing: all stays.
  void plan(std::deque<SharedPlacement> stages);
  // After kCopy, the next version: rank 0's own offer, or what it has sent. The error: that it is not what rank 0
  // named.
  const SharedPlacement& offer() const { return stages_.front(); }
  Status begin(SharedPlacement next);
  // When copying is through.
  void end_copying(bool worked) { standing_ = worked ? CouncilWord::Standing::kReady : CouncilWord::Standing::kFailed; }

  const SharedPlacement& now() const { return now_; }
  const SharedPlacement& next() const { return next_; }  // while it is copied
  int first_failed() const { return first_failed_; }     // of kDrop: the rank

 private:
  enum class State { kCounting, kPlanning, kCopying };

  void count_again(uint64_t step);

  const EplbOptions options_;
  const int rank_;
  SharedPlacement now_, next_;
  State state_ = State::kCounting;
  CouncilWord::Standing standing_ = CouncilWord::Standing::kBusy;
  uint64_t next_step_;
  uint32_t offered_version_ = 0, offered_hash_ = 0;  // by rank 0
  std::deque<SharedPlacement> stages_;               // rank 0's, that are to come
  int first_failed_ = -1;
};

// How often a rank's rows have chosen each expert in the last window_size steps, or an eighth of them more.
class LoadWindow {
 public:
  // counts: since the start; borrowed, and written by the same thread.
  LoadWindow(std::span<const uint64_t> counts, int window_size) : counts_(counts), window_size_(window_size) {}

  void note(uint64_t step);  // before each round
  std::vector<uint32_t> counts() const;

 private:
  struct Snapshot {
    uint64_t step;
    std::vector<uint64_t> counts;
  };
  std::span<const uint64_t> counts_;
  uint64_t window_size_;
  std::deque<Snapshot> snapshots_;
};

}  // namespace cachalot
