#include "comm/mesh.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <ctime>
#include <random>
#include <thread>

#include "base/error.h"
#include "comm/local_mesh_test_util.h"

namespace cachalot {

namespace {

using std::chrono::milliseconds;
using Clock = ExchangeClock::Clock;

TEST(ExchangeClock, SplitsACallIntoWaitingAndTheRest) {
  ExchangeClock clock;
  {
    const ExchangeClock::Call call(clock, "combine", 3);
    const Clock::time_point begin = Clock::now();
    std::this_thread::sleep_for(milliseconds(4));
    clock.add_wait(begin, begin + milliseconds(3), 3);
  }
  EXPECT_EQ(clock.waiting(), milliseconds(3));
  EXPECT_GE(clock.exchanging(), milliseconds(1));
  EXPECT_EQ(clock.total(), clock.waiting() + clock.exchanging());
}

TEST(ExchangeClock, CountsACallWithinACallOnce) {
  ExchangeClock clock;
  const Clock::time_point begin = Clock::now();
  {
    const ExchangeClock::Call outer(clock, "all-reduce", -1);
    const ExchangeClock::Call inner(clock, "all-gather", -1);
    std::this_thread::sleep_for(milliseconds(2));
  }
  EXPECT_GE(clock.exchanging(), milliseconds(2));
  EXPECT_LE(clock.exchanging(), Clock::now() - begin);
}

TEST(ExchangeClock, NotesCallsAndTheirWaitsInATrace) {
  ExchangeClock clock;
  StepTrace trace;
  clock.set_trace(&trace);
  {
    const ExchangeClock::Call call(clock, {.operation = "o_proj reduce-scatter", .step = 7, .layer = 2});
    const ExchangeClock::Call part(clock, "a part", 2);
    const Clock::time_point now = Clock::now();
    clock.add_wait(now, now, 2);
  }
  clock.set_trace(nullptr);
  {
    const ExchangeClock::Call call(clock, "not noted", 0);
  }
  ASSERT_EQ(trace.spans().size(), 2);
  EXPECT_EQ(trace.spans()[0].kind, TraceSpan::Kind::kWaiting);
  EXPECT_EQ(trace.spans()[1].name, "o_proj reduce-scatter");
  EXPECT_EQ(trace.spans()[1].kind, TraceSpan::Kind::kExchange);
  EXPECT_EQ(trace.spans()[1].layer, 2);
  EXPECT_LE(trace.spans()[1].begin, trace.spans()[0].begin);
  EXPECT_GE(trace.spans()[1].end, trace.spans()[0].end);
}

using std::chrono::milliseconds;
using testing::AllOf;
using testing::AnyOf;
using testing::HasSubstr;
using Meshes = std::vector<std::unique_ptr<Mesh>>;

Meshes ring_mesh(int num_ranks, const MeshOptions& options = {}, uint32_t ring_bytes = 0) {
  auto meshes = make_local_mesh(num_ranks, options, ring_bytes);
  CHECK(meshes, "{}", meshes.error().message);
  return std::move(*meshes);
}

// body(mesh) on a thread a rank.
template <class Body>
void on_meshes(Meshes& meshes, Body body) {
  std::vector<std::thread> threads;
  for (auto& mesh : meshes) threads.emplace_back([&body, &mesh] { body(*mesh); });
  for (std::thread& thread : threads) thread.join();
}

// Bytes that tell sender, receiver, message and place apart.
void fill(std::span<std::byte> bytes, uint64_t seed) {
  for (size_t idx = 0; idx < bytes.size(); idx++)
    bytes[idx] = static_cast<std::byte>((seed * 2654435761u + idx * 31) >> 3);
}

uint64_t message_seed(int from, int to, int step) {
  return (uint64_t(from) << 40) | (uint64_t(to) << 20) | uint64_t(step);
}

// One exchange: `sizes(from, to)` bytes from every rank to every other, checked.
template <class Sizes>
void exchange(Mesh& mesh, int step, Sizes sizes) {
  std::vector<std::vector<std::byte>> out(mesh.size()), in(mesh.size());
  std::vector<SendOp> sends;
  std::vector<ReceiveOp> receives;
  for (int peer = 0; peer < mesh.size(); peer++) {
    if (peer == mesh.rank()) continue;
    out[peer].resize(sizes(mesh.rank(), peer));
    fill(out[peer], message_seed(mesh.rank(), peer, step));
    in[peer].resize(sizes(peer, mesh.rank()) + 5);  // room to spare: the message says its size
    sends.push_back({.peer = peer, .data = out[peer]});
    receives.push_back({.peer = peer, .buffer = in[peer]});
  }
  for (ReceiveOp& op : receives) mesh.start(op);
  for (SendOp& op : sends) mesh.start(op);
  const Status status = mesh.wait(sends, receives, {"exchange", uint64_t(step)});
  ASSERT_TRUE(status) << status.error().message;
  for (const ReceiveOp& op : receives) {
    ASSERT_EQ(op.size, sizes(op.peer, mesh.rank()));
    std::vector<std::byte> expected(op.size);
    fill(expected, message_seed(op.peer, mesh.rank(), step));
    ASSERT_TRUE(std::equal(expected.begin(), expected.end(), op.buffer.begin()))
        << "from " << op.peer << ", step " << step;
  }
}

// The same number on every rank, from 0 to several rings.
size_t random_size(int from, int to, int step, size_t max_size) {
  std::mt19937_64 random(message_seed(from, to, step));
  const size_t kind = random() % 4;
  return kind == 0 ? 0 : kind == 1 ? random() % 100 : random() % (kind == 2 ? max_size / 50 : max_size);
}

TEST(Mesh, OneRankNeedsNoTransport) {
  Meshes meshes = ring_mesh(1);
  EXPECT_TRUE(meshes[0]->wait({}, {}, {"nothing"}));
  EXPECT_TRUE(meshes[0]->traffic().empty());
}

TEST(Mesh, EveryRankGetsWhatEveryOtherSends) {
  for (const int num_ranks : {2, 3, 8}) {
    Meshes meshes = ring_mesh(num_ranks);
    on_meshes(meshes, [&](Mesh& mesh) {
      for (int step = 0; step < 20; step++)
        exchange(mesh, step, [&](int from, int to) { return random_size(from, to, step, 20'000); });
    });
  }
}

TEST(Mesh, MessagesMayBeFarLongerThanARing) {
  Meshes meshes = ring_mesh(3, {}, 4096);
  on_meshes(meshes, [&](Mesh& mesh) {
    for (int step = 0; step < 6; step++)
      exchange(mesh, step, [&](int from, int to) { return random_size(from, to, step, 3 << 20); });
  });
}

TEST(Mesh, AMissedDeadlineNamesTheSiteAndWhoIsMissing) {
  Meshes meshes =
      ring_mesh(3, {.rank_names = {"rank 0 (a)", "rank 1 (b)", "rank 2 (c)"}, .deadline = milliseconds(30)});
  std::byte byte{};
  SendOp send{.peer = 0, .data = {&byte, 1}};
  meshes[2]->start(send);
  std::array<std::byte, 2> bytes{};
  std::array receives = {ReceiveOp{.peer = 1, .buffer = {&bytes[0], 1}},
                         ReceiveOp{.peer = 2, .buffer = {&bytes[1], 1}}};
  for (ReceiveOp& op : receives) meshes[0]->start(op);
  const Status status = meshes[0]->wait({}, receives, {"o_proj reduce-scatter", 17, 3});
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, ErrorCode::kDeadlineExceeded);
  EXPECT_EQ(status.error().message, "o_proj reduce-scatter (layer 3, step 17): rank 0 (a) waited 30 ms for rank 1 (b)");
  EXPECT_EQ(meshes[0]->wait({}, {}, {"later"}).error().message, status.error().message) << "it has failed for good";
  EXPECT_EQ(meshes[0]->progress().error().message, status.error().message);
}

TEST(Mesh, RanksThatWaitForAFailedRankFailToo) {
  Meshes meshes = ring_mesh(2);
  std::byte byte{};
  std::array receives = {ReceiveOp{.peer = 0, .buffer = {&byte, 1}}};
  meshes[1]->start(receives[0]);
  std::thread other([&] {
    std::this_thread::sleep_for(milliseconds(20));
    meshes[0]->fail({ErrorCode::kUnavailable, "rank 7 died"});
    EXPECT_FALSE(meshes[0]->progress());
  });
  const Status status = meshes[1]->wait({}, receives, {"gather"});
  other.join();
  ASSERT_FALSE(status);
  EXPECT_THAT(status.error().message, AllOf(HasSubstr("gather"), HasSubstr("rank 0 has closed")));
}

// Ranks far outnumber cores, every rank sleeps in nearly every step, and rings are too small for many messages.
TEST(Mesh, LosesNoWakeUpUnderStress) {
  for (const int num_ranks : {2, 5, 16, 32}) {
    Meshes meshes = ring_mesh(num_ranks, {.deadline = milliseconds(30'000)}, 4096);
    on_meshes(meshes, [&](Mesh& mesh) {
      for (int step = 0; step < 2000 / num_ranks; step++)
        exchange(mesh, step, [&](int from, int to) { return random_size(from, to, step, 10'000); });
    });
  }
}

TEST(Mesh, PingPongLosesNoWakeUpWithAndWithoutSpinning) {
  for (const int spin : {0, 3, 50}) {
    Meshes meshes = ring_mesh(2, {.deadline = milliseconds(30'000), .spin = std::chrono::microseconds(spin)});
    on_meshes(meshes, [&](Mesh& mesh) {
      for (uint32_t step = 0; step < 4000; step++) {
        uint32_t out = step * 2, in = 0;
        std::array sends = {SendOp{.peer = 1 - mesh.rank(), .data = std::as_bytes(std::span(&out, 1))}};
        std::array receives = {ReceiveOp{.peer = 1 - mesh.rank(), .buffer = std::as_writable_bytes(std::span(&in, 1))}};
        mesh.start(receives[0]);
        if (mesh.rank() == 0) mesh.start(sends[0]);
        ASSERT_TRUE(mesh.wait(std::span(sends).first(0), receives, {"ping"}));
        ASSERT_EQ(in, step * 2 + (mesh.rank() == 0));
        out++;
        if (mesh.rank() == 1) mesh.start(sends[0]);
        ASSERT_TRUE(mesh.wait(std::span(sends).first(mesh.rank() == 1), {}, {"pong"}));
      }
    });
  }
}

// Rank 2 has a receive open from rank 0 but waits for rank 1 alone; rank 1 waits for rank 0, and rank 0 until its long
// message to rank 2 is through. Rank 2 must take it while it waits for another.
TEST(Mesh, ASleeperTakesWhatOthersMustGetRidOf) {
  Meshes meshes = ring_mesh(3, {.deadline = milliseconds(10'000)}, 4096);
  on_meshes(meshes, [&](Mesh& mesh) {
    std::vector<std::byte> large(1 << 20), small(1);
    for (int step = 0; step < 200; step++) {
      if (mesh.rank() == 0) {
        std::array sends = {SendOp{.peer = 2, .data = large}, SendOp{.peer = 1, .data = small}};
        mesh.start(sends[0]);
        ASSERT_TRUE(mesh.wait(std::span(sends).first(1), {}, {"large"}));
        mesh.start(sends[1]);
        ASSERT_TRUE(mesh.wait(std::span(sends).last(1), {}, {"small"}));
      } else if (mesh.rank() == 1) {
        std::array receives = {ReceiveOp{.peer = 0, .buffer = small}};
        std::array sends = {SendOp{.peer = 2, .data = small}};
        mesh.start(receives[0]);
        ASSERT_TRUE(mesh.wait({}, receives, {"from 0"}));
        mesh.start(sends[0]);
        ASSERT_TRUE(mesh.wait(sends, {}, {"to 2"}));
      } else {
        std::array receives = {ReceiveOp{.peer = 0, .buffer = large}, ReceiveOp{.peer = 1, .buffer = small}};
        for (ReceiveOp& op : receives) mesh.start(op);
        ASSERT_TRUE(mesh.wait({}, std::span(receives).last(1), {"from 1"}));
        ASSERT_TRUE(mesh.wait({}, receives, {"from 0"}));
      }
    }
  });
}

TEST(Mesh, MessagesMayBeReceivedLongAfterTheyWereSentAndInPortions) {
  Meshes meshes = ring_mesh(2);
  on_meshes(meshes, [&](Mesh& mesh) {
    constexpr int kMessages = 1000;
    std::vector<uint32_t> words(kMessages);
    if (mesh.rank() == 0) {
      std::vector<SendOp> sends;
      for (int idx = 0; idx < kMessages; idx++) {
        words[idx] = static_cast<uint32_t>(idx);
        sends.push_back({.peer = 1, .data = std::as_bytes(std::span(&words[idx], 1))});
      }
      for (SendOp& op : sends) mesh.start(op);
      ASSERT_TRUE(mesh.wait(sends, {}, {"all at once"}));
      ASSERT_TRUE(mesh.progress());
    } else {
      for (int idx = 0; idx < kMessages; idx++) {
        std::array receives = {ReceiveOp{.peer = 0, .buffer = std::as_writable_bytes(std::span(&words[idx], 1))}};
        mesh.start(receives[0]);
        ASSERT_TRUE(mesh.wait({}, receives, {"one by one"}));
        ASSERT_EQ(words[idx], idx);
      }
    }
  });
}

// A rank with nothing to do: woken by messages and by other threads, and none of either gets lost.
TEST(Mesh, WaitForAnyTellsEveryWakeAndEveryMessage) {
  Meshes meshes = ring_mesh(2);
  constexpr int kRounds = 2000;
  std::atomic<int> num_told{0};
  std::thread waker([&] {
    for (int round = 0; round < kRounds; round++) {
      meshes[0]->wake();
      // The next wake would fall into one with this.
      for (int told = num_told; told <= round; told = num_told) num_told.wait(told);
    }
  });
  std::thread sender([&] {
    for (uint32_t round = 0; round < kRounds; round++) {
      std::array sends = {SendOp{.peer = 0, .data = std::as_bytes(std::span(&round, 1))}};
      meshes[1]->start(sends[0]);
      ASSERT_TRUE(meshes[1]->wait(sends, {}, {"send"}));
    }
  });
  uint32_t num_received = 0, word = 0;
  std::array receives = {ReceiveOp{.peer = 1, .buffer = std::as_writable_bytes(std::span(&word, 1))}};
  meshes[0]->start(receives[0]);
  while (num_received < kRounds || num_told < kRounds) {
    const Result<bool> is_message = meshes[0]->wait_for_any(receives);
    ASSERT_TRUE(is_message) << is_message.error().message;
    if (!*is_message) {
      num_told++;
      num_told.notify_one();
      continue;
    }
    ASSERT_EQ(word, num_received++);
    receives[0].done = false;
    if (num_received < kRounds) meshes[0]->start(receives[0]);
  }
  waker.join();
  sender.join();
}

TEST(Mesh, AWakeInTheMiddleOfAWaitIsToldLater) {
  Meshes meshes = ring_mesh(2);
  uint32_t word = 0;
  std::array receives = {ReceiveOp{.peer = 1, .buffer = std::as_writable_bytes(std::span(&word, 1))}};
  meshes[0]->start(receives[0]);
  std::thread other([&] {
    meshes[0]->wake();
    std::this_thread::sleep_for(milliseconds(20));
    const uint32_t sent = 7;
    std::array sends = {SendOp{.peer = 0, .data = std::as_bytes(std::span(&sent, 1))}};
    meshes[1]->start(sends[0]);
    EXPECT_TRUE(sends[0].done);
  });
  EXPECT_TRUE(meshes[0]->wait({}, receives, {"message"}));
  other.join();
  EXPECT_FALSE(*meshes[0]->wait_for_any({}));
}

TEST(Mesh, AnIdleRankUsesNoProcessorTime) {
  Meshes meshes = ring_mesh(2, {.spin = std::chrono::microseconds(100)});
  std::thread waker([&] {
    std::this_thread::sleep_for(milliseconds(300));
    meshes[0]->wake();
  });
  timespec before, after;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &before);
  EXPECT_FALSE(*meshes[0]->wait_for_any({}));
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &after);
  waker.join();
  EXPECT_LT((after.tv_sec - before.tv_sec) * 1e9 + double(after.tv_nsec - before.tv_nsec), 3e6);
}

TEST(Mesh, FailingWakesEveryWaiterAndTheFirstErrorStays) {
  constexpr int kRanks = 8;
  Meshes meshes = ring_mesh(kRanks);
  std::thread failer([&] {
    std::this_thread::sleep_for(milliseconds(30));
    for (auto& mesh : meshes) mesh->fail({ErrorCode::kUnavailable, "rank 9 died"});
    for (auto& mesh : meshes) mesh->fail({ErrorCode::kUnavailable, "second"});
  });
  on_meshes(meshes, [&](Mesh& mesh) {
    std::byte byte;
    std::array receives = {ReceiveOp{.peer = (mesh.rank() + 1) % kRanks, .buffer = {&byte, 1}}};
    mesh.start(receives[0]);
    // A rank may also see that its neighbour has closed, before its own turn comes.
    const auto is_expected = AnyOf(HasSubstr("rank 9 died"), HasSubstr("has closed its connections"));
    if (mesh.rank() % 2 == 0) {
      EXPECT_THAT(mesh.wait({}, receives, {"never"}).error().message, is_expected);
    } else {
      EXPECT_THAT(mesh.wait_for_any(receives).error().message, is_expected);
    }
    EXPECT_THAT(mesh.failure()->message, is_expected);
  });
  failer.join();
}

TEST(Mesh, AFailureThatCameBetweenCallsIsToldByTheNext) {
  Meshes meshes = ring_mesh(2);
  EXPECT_FALSE(meshes[0]->failure());
  meshes[0]->fail({ErrorCode::kCancelled, "stopping"});
  std::byte byte{};
  std::array sends = {SendOp{.peer = 1, .data = {&byte, 1}}};
  meshes[0]->start(sends[0]);
  EXPECT_EQ(meshes[0]->wait(sends, {}, {"late"}).error().message, "stopping");
  EXPECT_EQ(meshes[0]->wait_for_any({}).error().message, "stopping");
}

TEST(Mesh, AMessageLongerThanItsBufferIsAnErrorThatNamesTheSiteAndTheSender) {
  Meshes meshes = ring_mesh(2);
  std::vector<std::byte> bytes(11);
  std::array sends = {SendOp{.peer = 0, .data = bytes}};
  meshes[1]->start(sends[0]);
  std::array receives = {ReceiveOp{.peer = 1, .buffer = std::span(bytes).first(10)}};
  meshes[0]->start(receives[0]);
  EXPECT_EQ(
      meshes[0]->wait({}, receives, {"combine", 4, 2}).error().message,
      "combine (layer 2, step 4): rank 0: rank 1 (shared memory): a message of 11 bytes came where at most 10 are "
      "expected");
}

TEST(Mesh, ARankThatNoTransportConnectsIsNamed) {
  const auto mesh = Mesh::create({.rank = 0, .size = 2}, {});
  ASSERT_FALSE(mesh);
  EXPECT_EQ(mesh.error().message, "rank 0: no transport connects it to rank 1");
}

TEST(Mesh, CountsTrafficAndTimeWaited) {
  Meshes meshes = ring_mesh(3);
  on_meshes(meshes, [&](Mesh& mesh) {
    if (mesh.rank() == 0) std::this_thread::sleep_for(milliseconds(20));
    exchange(mesh, 0, [](int, int) { return size_t{1000}; });
  });
  EXPECT_GE(meshes[1]->clock().waiting(), milliseconds(10));
  EXPECT_EQ(meshes[1]->transport_of(0), "shm");
  const std::vector<Mesh::Traffic> traffic = meshes[1]->traffic();
  ASSERT_EQ(traffic.size(), 1);
  EXPECT_EQ(traffic[0].transport, "shm");
  EXPECT_EQ(traffic[0].bytes_sent, 2000);
  EXPECT_EQ(traffic[0].bytes_received, 2000);
  EXPECT_EQ(traffic[0].num_peers, 2);
}

// One message from a rank to another that is ready for it.
Status pass_on(Mesh& from, Mesh& to, const CollectiveSite& site = {.operation = "test"}) {
  const int32_t sent = 7;
  int32_t received = 0;
  SendOp send{.peer = to.rank(), .data = std::as_bytes(std::span(&sent, 1))};
  ReceiveOp receive{.peer = from.rank(), .buffer = std::as_writable_bytes(std::span(&received, 1))};
  from.start(send);
  to.start(receive);
  RETURN_IF_ERROR(from.wait(std::span(&send, 1), {}, site));
  RETURN_IF_ERROR(to.wait({}, std::span(&receive, 1), site));
  EXPECT_EQ(received, 7);
  return {};
}

Status begin_epoch(Meshes& meshes, uint32_t epoch, const std::vector<int>& living) {
  auto transports = make_local_shm(static_cast<int>(meshes.size()), 0, epoch).value();
  for (const int rank : living) {
    std::vector<std::unique_ptr<Transport>> own;
    own.push_back(std::move(transports[static_cast<size_t>(rank)]));
    RETURN_IF_ERROR(meshes[static_cast<size_t>(rank)]->begin_epoch(epoch, living, std::move(own)));
  }
  return {};
}

TEST(MeshEpochs, WhoIsLeftGoesOnInTheNextOne) {
  Meshes meshes = ring_mesh(3);
  ASSERT_TRUE(pass_on(*meshes[0], *meshes[2]));
  meshes[1].reset();
  int32_t never = 0;
  ReceiveOp receive{.peer = 1, .buffer = std::as_writable_bytes(std::span(&never, 1))};
  meshes[0]->start(receive);
  const Status lost = meshes[0]->wait({}, std::span(&receive, 1), {.operation = "test"});
  ASSERT_FALSE(lost);
  EXPECT_TRUE(ends_epoch(lost.error())) << lost.error().message;
  ASSERT_TRUE(begin_epoch(meshes, 2, {0, 2}));
  EXPECT_EQ(meshes[0]->epoch(), 2u);
  EXPECT_FALSE(meshes[0]->takes_part(1));
  EXPECT_EQ(meshes[0]->num_living(), 2);
  EXPECT_TRUE(pass_on(*meshes[2], *meshes[0]));
  EXPECT_TRUE(pass_on(*meshes[0], *meshes[2]));
  EXPECT_EQ(meshes[0]->traffic()[0].bytes_sent, 8u) << "of both epochs";
  EXPECT_EQ(meshes[0]->traffic()[0].num_peers, 1);
}

TEST(MeshEpochs, EndWhenTheyAreToldAndOnlyThen) {
  Meshes meshes = ring_mesh(2);
  ASSERT_TRUE(begin_epoch(meshes, 5, {0, 1}));
  meshes[0]->end_epoch(4, {ErrorCode::kUnavailable, "a loss of before", {}});
  EXPECT_TRUE(pass_on(*meshes[0], *meshes[1])) << "what was said of an epoch before";
  meshes[0]->end_epoch(5, {ErrorCode::kUnavailable, "a loss", {}});
  EXPECT_EQ(meshes[0]->progress().error().message, "a loss");
  meshes[0]->end_epoch(6, {ErrorCode::kUnavailable, "one more", {}});
  const Status stillborn = begin_epoch(meshes, 6, {0, 1});
  ASSERT_FALSE(stillborn) << "it was over before it began here";
  EXPECT_EQ(stillborn.error().message, "one more");
  EXPECT_TRUE(begin_epoch(meshes, 7, {0, 1}));
  EXPECT_TRUE(pass_on(*meshes[0], *meshes[1]));
}

TEST(MeshEpochs, AStopOutlivesThem) {
  Meshes meshes = ring_mesh(2);
  meshes[0]->end_epoch(1, {ErrorCode::kUnavailable, "a loss", {}});
  meshes[0]->fail({ErrorCode::kCancelled, "stopped", {}});
  EXPECT_EQ(begin_epoch(meshes, 2, {0, 1}).error().message, "stopped");
}

}  // namespace

}  // namespace cachalot
