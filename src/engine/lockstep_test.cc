#include "engine/lockstep.h"

#include <gmock/gmock.h>

#include <chrono>
#include <numeric>
#include <thread>

#include "comm/local_mesh_test_util.h"

namespace cachalot {
namespace {

using namespace std::chrono_literals;  // NOLINT(google-build-using-namespace)

ParallelOptions place(int dp_size, int tp_size, int rank) {
  return {.tensor_parallel_size = tp_size,
          .tensor_parallel_rank = rank % tp_size,
          .data_parallel_size = dp_size,
          .data_parallel_rank = rank / tp_size,
          .enable_expert_parallel = true};
}

std::vector<int> all_ranks(int count) {
  std::vector<int> ranks(static_cast<size_t>(count));
  std::iota(ranks.begin(), ranks.end(), 0);
  return ranks;
}

constexpr RoundLimits kLimits{.max_num_seqs = 4,
                              .max_rows = 16,
                              .max_steps = 8,
                              .max_model_len = 64,
                              .block_size = 16,
                              .num_blocks = 10,
                              .vocab_size = 100};

// Meshes and locksteps of all ranks of a layout, each used by a thread of its own.
struct Ranks {
  Ranks(int dp_size, int tp_size) : meshes(make_local_mesh(dp_size * tp_size, {.deadline = 5s}).value()) {
    for (int rank = 0; rank < dp_size * tp_size; rank++)
      locksteps.push_back(std::make_unique<Lockstep>(
          *meshes[static_cast<size_t>(rank)],
          roles_in_epoch(place(dp_size, tp_size, rank), all_ranks(dp_size * tp_size)), kLimits));
  }
  template <class Body>
  void run(Body body) {
    std::vector<std::thread> threads;
    for (size_t rank = 0; rank < locksteps.size(); rank++)
      threads.emplace_back([&, rank] { body(static_cast<int>(rank), *locksteps[rank]); });
    for (std::thread& thread : threads) thread.join();
  }

  std::vector<std::unique_ptr<Mesh>> meshes;
  std::vector<std::unique_ptr<Lockstep>> locksteps;
};

TEST(Lockstep, TheRoundHasTheFewestStepsOfThoseWithRows) {
  Ranks ranks(3, 1);
  const std::vector<Wish> wishes{
      {.num_rows = 5, .num_steps = 8}, {.num_rows = 0, .num_steps = 1}, {.num_rows = 2, .num_steps = 4}};
  ranks.run([&](int rank, Lockstep& lockstep) {
    const auto agreement = lockstep.agree(wishes[static_cast<size_t>(rank)]);
    ASSERT_TRUE(agreement);
    EXPECT_EQ(agreement->num_rows, 7);
    EXPECT_EQ(agreement->num_steps, 4);
    EXPECT_FALSE(agreement->all_leave);
    EXPECT_EQ(lockstep.num_agreements(), 1U);
  });
}

TEST(Agreements, FollowFromTheWordsAlone) {
  Agreements agreements(kLimits, 5);
  const LeaderWord own = agreements.begin({.num_rows = 2, .num_steps = 4});
  EXPECT_EQ(own.agreement, 0u);
  EXPECT_EQ(own.epoch, 5u);
  EXPECT_EQ(agreements.hear({0, 16, 1, 0, 4}, sizeof own, "rank 1"), false) << "of the epoch before";
  EXPECT_EQ(agreements.hear({0, 3, 8, 0, 5}, sizeof own, "rank 1"), true);
  EXPECT_EQ(agreements.hear({0, 0, 1, 1, 5}, sizeof own, "rank 2"), true);
  const Agreement made = agreements.end();
  EXPECT_EQ(made.num_rows, 5);
  EXPECT_EQ(made.num_steps, 4) << "who brings no rows wishes nothing";
  EXPECT_FALSE(made.all_leave);
  EXPECT_EQ(agreements.num_foreign(), 1u);
  agreements.begin({});
  EXPECT_FALSE(agreements.hear({0, 3, 8, 0, 5}, sizeof own, "rank 1")) << "a word of the agreement before";
  EXPECT_FALSE(agreements.hear({1, 3, 8, 0, 5}, 4, "rank 1"));
}

TEST(Lockstep, AllLeaveWhenTheLastOneSaysSo) {
  Ranks ranks(2, 1);
  ranks.run([&](int rank, Lockstep& lockstep) {
    EXPECT_FALSE(lockstep.agree({.leaving = rank == 1})->all_leave);
    EXPECT_TRUE(lockstep.agree({.leaving = true})->all_leave);
  });
}

TEST(Lockstep, AnIdleLeaderIsWokenByAnothersWordAndByItsOwnOwner) {
  Ranks ranks(2, 1);
  std::thread owner;
  ranks.run([&](int rank, Lockstep& lockstep) {
    if (rank == 0) {
      std::this_thread::sleep_for(20ms);
      EXPECT_TRUE(lockstep.agree({.num_rows = 1}));
      return;
    }
    EXPECT_EQ(lockstep.wait_for_others(), true);
    EXPECT_EQ(lockstep.agree({})->num_rows, 1);
    owner = std::thread([&] {
      std::this_thread::sleep_for(20ms);
      lockstep.wake();
    });
    EXPECT_EQ(lockstep.wait_for_others(), false);
  });
  owner.join();
}

TEST(Lockstep, ALeadersRanksHearItsRoundsInOrder) {
  Ranks ranks(2, 2);
  ranks.run([](int rank, Lockstep& lockstep) {
    const std::vector<TokenId> tokens{7, 8, 9};
    const std::vector<BlockId> blocks{2};
    for (uint64_t number = 0; number < 50; number++) {
      if (rank % 2 == 0) {
        ASSERT_TRUE(lockstep.agree({.num_rows = 3}));
        ASSERT_TRUE(
            lockstep.announce({.number = 10 * number + static_cast<uint64_t>(rank),
                               .num_steps = 1,
                               .sequences = {{.num_tokens = 3, .sample = true, .tokens = tokens, .blocks = blocks}}}));
      } else {
        const auto round = lockstep.next_round();
        ASSERT_TRUE(round);
        EXPECT_EQ((*round)->number, 10 * number + static_cast<uint64_t>(rank - 1)) << "of its own leader";
        EXPECT_THAT((*round)->sequences[0].tokens, testing::ElementsAre(7, 8, 9));
      }
    }
  });
}

TEST(Lockstep, ARoundWithABlockThatAFollowerHasNotIsRefused) {
  Ranks ranks(1, 2);
  ranks.run([](int rank, Lockstep& lockstep) {
    const std::vector<TokenId> tokens{7};
    const std::vector<BlockId> blocks{10};
    if (rank == 0) {
      ASSERT_TRUE(lockstep.announce(
          {.number = 3, .num_steps = 1, .sequences = {{.num_tokens = 1, .tokens = tokens, .blocks = blocks}}}));
      return;
    }
    const auto round = lockstep.next_round();
    ASSERT_FALSE(round);
    EXPECT_THAT(round.error().message, testing::HasSubstr("block 10; this rank has 10 blocks"));
  });
}

TEST(Lockstep, AWishBeyondTheLimitsIsRefused) {
  for (const Wish& wish : {Wish{.num_rows = 17}, Wish{.num_rows = -1}, Wish{.num_rows = 1, .num_steps = 9},
                           Wish{.num_rows = 1, .num_steps = 0}}) {
    Ranks ranks(2, 1);
    ranks.run([&](int rank, Lockstep& lockstep) {
      const auto agreement = lockstep.agree(rank == 0 ? wish : Wish{});
      EXPECT_EQ(agreement.has_value(), rank == 0) << wish.num_rows << " rows, " << wish.num_steps << " steps";
    });
  }
}

TEST(Lockstep, AnEpochEndsBetweenTwoRoundsForAllWhenOneSaysSo) {
  Ranks ranks(2, 2);
  ranks.locksteps[2]->end_epoch(1);
  ranks.run([](int rank, Lockstep& lockstep) {
    Error error;
    if (rank % 2 == 1) {
      const auto round = lockstep.next_round();
      ASSERT_FALSE(round);
      error = round.error();
    } else {
      if (rank == 0) {
        EXPECT_EQ(lockstep.wait_for_others(), true);
      }
      EXPECT_EQ(lockstep.wants_to_end_epoch(), rank == 2);
      const auto agreement = lockstep.agree({.num_rows = rank == 0 ? 3 : 0});
      ASSERT_FALSE(agreement);
      EXPECT_EQ(agreement.error().message, "epoch 1 ends: the group changes");
      error = agreement.error();
      lockstep.wake();
      EXPECT_FALSE(lockstep.wait_for_others()) << "and its connections close";
    }
    EXPECT_TRUE(ends_epoch(error)) << error.message;
  });
}

// Rank 1 speaks by hand, of another epoch first.
TEST(Lockstep, AWordOfAnotherEpochIsPassedOver) {
  Ranks ranks(2, 1);
  const std::vector<LeaderWord> words{{0, 9, 8, 1, 2}, {0, 9, 8, 1, 0}, {0, 3, 2, 0, 1}};
  std::vector<SendOp> sends;
  for (const LeaderWord& word : words) sends.push_back({.peer = 0, .data = std::as_bytes(std::span(&word, 1))});
  for (SendOp& send : sends) ranks.meshes[1]->start(send);
  const auto agreement = ranks.locksteps[0]->agree({.num_rows = 1, .num_steps = 4, .leaving = true});
  ASSERT_TRUE(agreement);
  EXPECT_EQ(agreement->num_rows, 1 + 3);
  EXPECT_EQ(agreement->num_steps, 2);
  EXPECT_FALSE(agreement->all_leave);
  EXPECT_EQ(ranks.locksteps[0]->num_foreign(), 2u);
}

TEST(Lockstep, ARoundOfAnotherEpochIsPassedOver) {
  Ranks ranks(1, 2);
  std::vector<std::byte> rounds[2];
  encode_round({.number = 7, .epoch = 2, .leave = true}, rounds[0]);
  encode_round({.number = 8, .epoch = 1, .leave = true}, rounds[1]);
  SendOp sends[]{{.peer = 1, .data = rounds[0]}, {.peer = 1, .data = rounds[1]}};
  for (SendOp& send : sends) ranks.meshes[0]->start(send);
  const auto round = ranks.locksteps[1]->next_round();
  ASSERT_TRUE(round) << round.error().message;
  EXPECT_EQ((*round)->number, 8u);
  EXPECT_EQ(ranks.locksteps[1]->num_foreign(), 1u);
}

TEST(Lockstep, WhoSleepsHearsThatTheGroupHasFailed) {
  Ranks ranks(2, 2);
  std::thread failing([&] {
    std::this_thread::sleep_for(20ms);
    for (auto& mesh : ranks.meshes) mesh->fail({ErrorCode::kUnavailable, "rank 9 is lost", {}});
  });
  // Whoever wakes later may find that a peer has hung up, which is as good a reason.
  ranks.run([](int rank, Lockstep& lockstep) {
    if (rank % 2 == 0) {
      EXPECT_FALSE(lockstep.wait_for_others());
    } else {
      EXPECT_FALSE(lockstep.next_round());
    }
  });
  failing.join();
}

}  // namespace
}  // namespace cachalot
