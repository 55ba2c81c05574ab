// An allocation that fails, wherever on the control threads it is.
#include <gtest/gtest.h>

#include "base/failing_allocation_test_util.h"
#include "comm/membership/loopback_test_util.h"

namespace cachalot::control {
namespace {

using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

bool within(milliseconds patience, const auto& condition) {
  for (const auto end = Clock::now() + patience; Clock::now() < end;) {
    if (condition()) return true;
    std::this_thread::sleep_for(milliseconds(1));
  }
  return condition();
}

struct Pair {
  Pair() {
    std::vector<JoinOptions> options = group_options(2);
    for (JoinOptions& rank : options) rank.failure_timeout = milliseconds(120);
    ranks = join_all(options);
    (*ranks[0])->set_progress_handler([this](int rank, const Activity& /*activity*/) { ++num_beats[rank]; });
  }
  bool both_know_of_a_loss() const { return (*ranks[0])->first_lost() && (*ranks[1])->first_lost(); }
  bool is_alive(milliseconds patience) {
    const std::array<int, 2> before{num_beats[0], num_beats[1]};
    return within(patience, [&] { return num_beats[0] > before[0] + 1 && num_beats[1] > before[1] + 1; });
  }

  std::array<std::atomic<int>, 2> num_beats{};  // that rank 0 sent, that rank 1 answered
  std::vector<JoinResult> ranks;
};

// Either everything goes on, or both ranks know that they have lost each other: nobody sits there and waits in silence.
TEST(Membership, AnAllocationThatFailsEndsNoHeartbeatsInSilence) {
  is_spared = true;
  const LogCapture log;
  std::unique_ptr<Pair> group;
  int num_alive = 0;
  constexpr int kNumPlaces = 24;
  for (int place = 0; place < kNumPlaces; place++) {
    if (!group || group->both_know_of_a_loss()) group = std::make_unique<Pair>();
    ASSERT_TRUE(group->is_alive(milliseconds(5'000)) || group->both_know_of_a_loss());
    failing_allocation = place;
    EXPECT_TRUE(within(milliseconds(2'000), [] { return failing_allocation < 0; })) << "nothing allocates";
    failing_allocation = -1;
    const bool alive = group->is_alive(milliseconds(2'000));
    EXPECT_TRUE(alive || within(milliseconds(2'000), [&] { return group->both_know_of_a_loss(); }))
        << "place " << place;
    num_alive += alive;
  }
  EXPECT_GT(num_alive, kNumPlaces / 2) << log.text();
  group.reset();
  is_spared = false;
}

}  // namespace
}  // namespace cachalot::control
