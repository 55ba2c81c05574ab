#include "comm/membership/member.h"

#include <gtest/gtest.h>

#include "comm/membership/agreement.h"
#include "comm/membership/role.h"

namespace cachalot::control {
namespace {

using std::chrono::milliseconds;

TEST(Member, RanksAreListedInWords) {
  EXPECT_EQ(rank_list({5}), "rank 5");
  EXPECT_EQ(rank_list({3, 7}), "ranks 3 and 7");
  EXPECT_EQ(rank_list({1, 2, 3, 4, 8, 9}), "ranks 1-4, 8 and 9");
}

TEST(Member, OnlyRanksThatMayRunOnTheSameCoresShareThem) {
  const auto on = [](int rank, const char* host, std::vector<int> cores) {
    return Member{.rank = rank, .node = {.boot_id = host}, .cores = std::move(cores)};
  };
  // Two and two on the halves of one node, one on another node that may run anywhere.
  const std::vector<Member> members{on(0, "a", {0, 1}), on(1, "a", {2, 3}), on(2, "a", {0, 1}), on(3, "a", {2, 3}),
                                    on(4, "b", {0, 1, 2, 3})};
  const auto sharers = [&](int rank) {
    const CoreSharers found = core_sharers(members, rank);
    return std::pair(found.place, found.count);
  };
  EXPECT_EQ(sharers(0), std::pair(0, 2));
  EXPECT_EQ(sharers(1), std::pair(0, 2));
  EXPECT_EQ(sharers(2), std::pair(1, 2));
  EXPECT_EQ(sharers(3), std::pair(1, 2));
  EXPECT_EQ(sharers(4), std::pair(0, 1));
}

TEST(Member, ALossNamesRankCauseAndWhatItWasDoing) {
  LostRank lost{.rank = 5, .name = "rank 5 (host b, pid 77)", .cause = "its process died"};
  EXPECT_EQ(lost.message(), "rank 5 (host b, pid 77) is lost: its process died");
  lost.doing = Activity{.phase = Phase::kStep, .step = 812};
  EXPECT_EQ(lost.message(), "rank 5 (host b, pid 77) is lost: its process died; it was in step 812");
  lost.doing = Activity{.phase = Phase::kLoading, .percent = 40};
  lost.is_this_rank = true;
  EXPECT_EQ(lost.message(),
            "the others have given up this rank, rank 5 (host b, pid 77): its process died; it was loading (40%)");
}

TEST(PatientClock, DoesNotCountTimeForWhichTheProcessWasHeldUp) {
  const PatientClock::Time begin{};
  PatientClock clock(milliseconds(10));
  EXPECT_TRUE(clock.woke(begin + milliseconds(100), begin + milliseconds(105)));
  EXPECT_EQ(clock.counted(begin + milliseconds(105)), begin + milliseconds(105));
  EXPECT_FALSE(clock.woke(begin + milliseconds(200), begin + milliseconds(5'000)));
  EXPECT_EQ(clock.counted(begin + milliseconds(5'000)), begin + milliseconds(210));
  EXPECT_TRUE(clock.woke(begin + milliseconds(5'100), begin + milliseconds(5'100)));
  EXPECT_EQ(clock.counted(begin + milliseconds(5'100)), begin + milliseconds(310));
}

TEST(GroupSecret, TheProofHoldsForOneSecretOneChallengeAndOneGreeting) {
  const Nonce nonce{1, 2, 3};
  const Hello hello{.introduction = {.rank = 1, .size = 2}, .nonce = {4, 5, 6}, .has_secret = true};
  const Proof proof = proof_of_hello("hush", nonce, hello);
  Hello with_proof = hello;
  with_proof.proof = proof;
  EXPECT_TRUE(equal(proof, proof_of_hello("hush", nonce, with_proof)));
  EXPECT_FALSE(equal(proof, proof_of_hello("hust", nonce, hello)));
  EXPECT_FALSE(equal(proof, proof_of_hello("hush", Nonce{7}, hello)));
  Hello changed = hello;
  changed.ucx_address = "elsewhere";
  EXPECT_FALSE(equal(proof, proof_of_hello("hush", nonce, changed)));
  EXPECT_FALSE(equal(proof, proof_of_rank0("hush", nonce, hello.nonce)));
}

}  // namespace
}  // namespace cachalot::control
