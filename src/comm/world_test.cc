#include "comm/world.h"

#include <gmock/gmock.h>
#include <sched.h>

#include <array>
#include <cstring>

#include "base/process_test_util.h"
#include "comm/membership/loopback_test_util.h"
#include "device/thread_pool.h"

namespace cachalot {
namespace {

using std::chrono::milliseconds;
using testing::AllOf;
using testing::HasSubstr;
using Clock = std::chrono::steady_clock;
using WorldResult = Result<std::unique_ptr<World>>;

std::vector<WorldResult> form_all(const std::vector<JoinOptions>& joins,
                                  TransportChoice transports = TransportChoice::kAuto) {
  std::vector<WorldResult> worlds(joins.size());
  {
    std::vector<std::jthread> threads;
    for (size_t i = 0; i < joins.size(); ++i) {
      threads.emplace_back([&, i] { worlds[i] = World::form({.join = joins[i], .transports = transports}); });
    }
  }
  return worlds;
}

void part(std::vector<WorldResult>& worlds) {
  std::vector<std::jthread> threads;
  for (WorldResult& world : worlds) threads.emplace_back([&world] { world->reset(); });
}

// Every rank sends its number to every other.
void talk(World& world) {
  std::vector<int32_t> received(world.size(), -1);
  std::vector<SendOp> sends;
  std::vector<ReceiveOp> receives;
  const int32_t rank = world.rank();
  for (int peer = 0; peer < world.size(); ++peer) {
    if (peer == rank) continue;
    sends.push_back({.peer = peer, .data = std::as_bytes(std::span(&rank, 1))});
    receives.push_back({.peer = peer, .buffer = std::as_writable_bytes(std::span(&received[peer], 1))});
  }
  for (SendOp& send : sends) world.mesh().start(send);
  for (ReceiveOp& receive : receives) world.mesh().start(receive);
  const Status done = world.mesh().wait(sends, receives, {.operation = "talk"});
  ASSERT_TRUE(done.has_value()) << done.error().message;
  for (int peer = 0; peer < world.size(); ++peer) EXPECT_EQ(received[peer], peer == rank ? -1 : peer);
}

class Transports : public testing::TestWithParam<TransportChoice> {};

TEST_P(Transports, ConnectEveryRankToEveryOtherAndAreNamed) {
  const control::LogCapture log;
  std::vector<WorldResult> worlds = form_all(control::group_options(4), GetParam());
  {
    std::vector<std::jthread> threads;
    for (WorldResult& world : worlds) {
      ASSERT_TRUE(world.has_value()) << world.error().message;
      threads.emplace_back([&world] { talk(**world); });
    }
  }
  EXPECT_EQ((*worlds[0])->mesh().rank_name(2), (*worlds[1])->members()[2].name());
  part(worlds);
  const std::string_view expected =
      GetParam() == TransportChoice::kUcx ? "rank 3: ucx to 3 ranks" : "rank 3: shm to 3 ranks";
  EXPECT_EQ(log.count(expected), 1) << log.text();
}

TEST(World, ARankWithoutSharedMemoryIsReachedThroughUcx) {
  const control::LogCapture log;
  std::vector<JoinOptions> joins = control::group_options(3);
  for (JoinOptions& join : joins) join.host = "0.0.0.0";  // this host, but not known as a place for one node alone
  std::vector<WorldResult> worlds(joins.size());
  {
    std::vector<std::jthread> threads;
    for (size_t i = 0; i < joins.size(); ++i) {
      threads.emplace_back([&, i] {
        worlds[i] =
            World::form({.join = joins[i], .transports = i == 2 ? TransportChoice::kUcx : TransportChoice::kAuto});
      });
    }
  }
  {
    std::vector<std::jthread> threads;
    for (WorldResult& world : worlds) {
      ASSERT_TRUE(world.has_value()) << world.error().message;
      threads.emplace_back([&world] { talk(**world); });
    }
  }
  EXPECT_EQ((*worlds[0])->mesh().transport_of(1), "shm");
  EXPECT_EQ((*worlds[0])->mesh().transport_of(2), "ucx");
  part(worlds);
  EXPECT_EQ(log.count("rank 1: UCX takes the place of shared memory with rank 2, on the same node"), 1) << log.text();
}

INSTANTIATE_TEST_SUITE_P(World, Transports,
                         testing::Values(TransportChoice::kAuto, TransportChoice::kShm, TransportChoice::kUcx),
                         [](const auto& instance) {
                           if (instance.param == TransportChoice::kAuto) return "Auto";
                           return instance.param == TransportChoice::kShm ? "Shm" : "Ucx";
                         });

TEST(World, KnowsOnWhichCoresEachRankMayRun) {
  const std::vector<int> cores = allowed_cores();
  const std::vector<JoinOptions> joins = control::group_options(2);
  std::vector<WorldResult> worlds(joins.size());
  {
    std::vector<std::jthread> threads;
    for (size_t i = 0; i < joins.size(); ++i) {
      threads.emplace_back([&, i] {
        if (i == 1) {  // bound to one core
          cpu_set_t one;
          CPU_ZERO(&one);
          CPU_SET(cores.back(), &one);
          ASSERT_EQ(sched_setaffinity(0, sizeof one, &one), 0);
        }
        worlds[i] = World::form({.join = joins[i]});
      });
    }
  }
  for (const WorldResult& world : worlds) {
    ASSERT_TRUE(world.has_value()) << world.error().message;
    EXPECT_EQ((*world)->members()[0].cores, cores);
    EXPECT_EQ((*world)->members()[1].cores, std::vector{cores.back()});
  }
  part(worlds);
}

TEST(World, OfOneNeedsNoSockets) {
  JoinOptions join = control::group_options(1)[0];
  join.host = "no address at all";
  const WorldResult world = World::form({.join = join});
  ASSERT_TRUE(world.has_value()) << world.error().message;
  EXPECT_EQ((*world)->mesh().size(), 1);
  EXPECT_TRUE((*world)->membership().wait_until_all_ready().has_value());
}

TEST(World, ARankThatGivesUpEndsTheWaitsOfAllOthers) {
  std::vector<WorldResult> worlds = form_all(control::group_options(3));
  for (const WorldResult& world : worlds) ASSERT_TRUE(world.has_value());
  std::jthread failing([&] { (*worlds[1])->membership().give_up("out of memory"); });
  OwnTime time;
  const auto begin = Clock::now();
  {
    std::vector<std::jthread> waiting;
    for (const int rank : {0, 2}) {
      waiting.emplace_back([&mesh = (*worlds[rank])->mesh()] {
        int32_t never = 0;
        std::array<ReceiveOp, 1> receive{{{.peer = 1, .buffer = std::as_writable_bytes(std::span(&never, 1))}}};
        mesh.start(receive[0]);
        const Status waited = mesh.wait({}, receive, {.operation = "talk"});
        ASSERT_FALSE(waited.has_value());
        EXPECT_THAT(waited.error().message,
                    AllOf(HasSubstr("rank 1 (replica 1"), HasSubstr("it gave up: out of memory")));
      });
    }
  }
  EXPECT_LT(time.since(begin), milliseconds(1'000));
  failing.join();
  part(worlds);
}

TEST(World, ADisagreementEndsTheStart) {
  std::vector<JoinOptions> joins = control::group_options(3);
  joins[1].model_fingerprint = "beef";
  for (const WorldResult& world : form_all(joins)) {
    ASSERT_FALSE(world.has_value());
    EXPECT_THAT(world.error().message, HasSubstr("'beef' on rank 1"));
  }
}

}  // namespace
}  // namespace cachalot
