#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ctime>
#include <optional>

#include "comm/group.h"
#include "comm/ucx/ucx_ranks_test_util.h"

namespace cachalot::ucx_test {
namespace {

using std::chrono::milliseconds;
using testing::AllOf;
using testing::HasSubstr;

using Clock = std::chrono::steady_clock;

// exchange() on all, on a thread a rank; empty or the first complaint.
std::string exchange_all(Meshes& meshes, int first_step, int num_steps, size_t max_words) {
  std::vector<std::string> complaints(meshes.size());
  on_threads(meshes.size(), [&](int rank) {
    complaints[rank] = exchange(meshes[rank], first_step, num_steps, max_words).value_or("");
  });
  const auto found = std::ranges::find_if(complaints, [](const auto& text) { return !text.empty(); });
  return found == complaints.end() ? "" : *found;
}

TEST(UcxTransport, MessagesOfAllSizesArriveInOrder) {
  Meshes meshes(2);
  // Many at once, so that small ones could overtake large ones.
  for (int round = 0; round < 4; round++) EXPECT_EQ(exchange_all(meshes, round * 8, 8, 1 << 20), "");
  EXPECT_GT(meshes[0].traffic()[0].bytes_sent, 1 << 20);
  EXPECT_EQ(meshes[0].traffic()[0].bytes_sent, meshes[1].traffic()[0].bytes_received);
  EXPECT_EQ(meshes[1].traffic()[0].bytes_sent, meshes[0].traffic()[0].bytes_received);
  EXPECT_EQ(meshes[0].traffic()[0].transport, "ucx");
}

TEST(UcxTransport, ManyRanksExchangeWithMany) {
  Meshes meshes(8);
  for (int round = 0; round < 10; round++) EXPECT_EQ(exchange_all(meshes, round * 3, 3, 16 << 10), "");
}

TEST(UcxTransport, MessagesOfFourMebibytesCrossWithoutDeadlock) {
  Meshes meshes(3);
  std::vector<std::string> complaints(3);
  on_threads(3, [&](int rank) {
    Mesh& mesh = meshes[rank];
    std::vector<std::byte> out(4 << 20, static_cast<std::byte>(rank + 1)), in(2 * out.size());
    const std::array peers = {(rank + 1) % 3, (rank + 2) % 3};
    std::array sends = {SendOp{.peer = peers[0], .data = out}, SendOp{.peer = peers[1], .data = out}};
    std::array receives = {ReceiveOp{.peer = peers[0], .buffer = std::span(in).first(out.size())},
                           ReceiveOp{.peer = peers[1], .buffer = std::span(in).last(out.size())}};
    for (SendOp& op : sends) mesh.start(op);  // before anyone awaits them
    for (ReceiveOp& op : receives) mesh.start(op);
    const Status status = mesh.wait(sends, receives, {"cross"});
    if (!status) complaints[rank] = status.error().message;
    for (const ReceiveOp& op : receives) {
      if (!std::ranges::all_of(op.buffer, [&](std::byte byte) { return byte == static_cast<std::byte>(op.peer + 1); }))
        complaints[rank] += fmt::format("wrong bytes from {}", op.peer);
    }
  });
  EXPECT_THAT(complaints, testing::Each(""));
}

double cpu_seconds() {
  timespec time{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

TEST(UcxTransport, RanksThatWaitSleepAndWakeAtOnce) {
  Meshes meshes(4);
  EXPECT_EQ(exchange_all(meshes, 0, 2, 1000), "");
  std::vector<milliseconds> latencies(4);
  std::optional<OwnTime> time;
  const double cpu_before = cpu_seconds();
  Clock::time_point sent_at;
  on_threads(4, [&](int rank) {
    std::byte byte{};
    if (rank == 0) {
      std::this_thread::sleep_for(milliseconds(500));
      std::vector<SendOp> sends;
      for (int peer = 1; peer < 4; peer++) sends.push_back({.peer = peer, .data = {&byte, 1}});
      time.emplace();
      sent_at = Clock::now();
      for (SendOp& op : sends) meshes[0].start(op);
      EXPECT_TRUE(meshes[0].wait(sends, {}, {"wake"}));
    } else {
      std::array receives = {ReceiveOp{.peer = 0, .buffer = {&byte, 1}}};
      meshes[rank].start(receives[0]);
      const Result<bool> arrived = meshes[rank].wait_for_any(receives);
      latencies[rank] = time->since(sent_at);
      EXPECT_TRUE(arrived && *arrived);
    }
  });
  EXPECT_LT(cpu_seconds() - cpu_before, 0.05) << "of half a second, three ranks waiting";
  for (int rank = 1; rank < 4; rank++) EXPECT_LT(latencies[rank], milliseconds(500));
}

// A lost wake-up would end in the mesh's deadline: more threads than cores, each waiting after each short message.
TEST(UcxTransport, NoWakeUpIsLost) {
  Meshes meshes(6);
  std::vector<std::string> complaints(6);
  on_threads(6, [&](int rank) {
    for (int step = 0; step < 4000 && complaints[rank].empty(); step++)
      complaints[rank] = exchange(meshes[rank], step, 1, 200).value_or("");
  });
  EXPECT_THAT(complaints, testing::Each(""));
}

TEST(UcxTransport, AMessageLongerThanItsBufferIsAnErrorThatNamesThePeer) {
  for (const size_t size : {size_t{11}, size_t{1} << 20}) {
    Meshes meshes(2);
    std::vector<std::byte> out(size), in(10);
    std::array sends = {SendOp{.peer = 1, .data = out}};
    std::array receives = {ReceiveOp{.peer = 0, .buffer = in}};
    meshes[0].start(sends[0]);
    meshes[1].start(receives[0]);
    std::jthread sender([&] { (void)meshes[0].wait(sends, {}, {"send"}); });
    const Status status = meshes[1].wait({}, receives, {"receive"});
    meshes.close(1);
    ASSERT_FALSE(status);
    EXPECT_THAT(status.error().message, HasSubstr("rank 0 (ucx): a message came that is longer than the 10 bytes"));
  }
}

TEST(UcxTransport, WhatWasSentBeforeAPeerClosedArrives) {
  for (int round = 0; round < 10; round++) {
    Meshes meshes(2);
    std::vector<std::byte> in(1 << 20);
    std::jthread sender([&] {
      std::vector<SendOp> sends;
      const std::vector<std::byte> out(5000, std::byte{7});
      for (int idx = 0; idx < 20; idx++) sends.push_back({.peer = 1, .data = out});
      for (SendOp& op : sends) meshes[0].start(op);
      EXPECT_TRUE(meshes[0].wait(sends, {}, {"send"}));
      meshes.close(0);
    });
    if (round % 2 != 0) std::this_thread::sleep_for(milliseconds(20));
    for (int idx = 0; idx < 20; idx++) {
      std::array receives = {ReceiveOp{.peer = 0, .buffer = in}};
      meshes[1].start(receives[0]);
      const Status status = meshes[1].wait({}, receives, {"receive"});
      ASSERT_TRUE(status) << idx << ": " << status.error().message;
      EXPECT_EQ(receives[0].size, 5000);
    }
    std::array receives = {ReceiveOp{.peer = 0, .buffer = in}};
    meshes[1].start(receives[0]);
    const Status status = meshes[1].wait({}, receives, {"one too many"});
    ASSERT_FALSE(status);
    EXPECT_THAT(status.error().message,
                AllOf(HasSubstr("one too many"), HasSubstr("rank 0 (ucx): the connection is lost")));
  }
}

TEST(UcxTransport, ClosingGivesUpWhatIsUnderWay) {
  auto transports = connect_threads(2);
  std::vector<std::byte> large(8 << 20), in(100);
  SendOp send{.peer = 1, .data = large};
  ReceiveOp receive{.peer = 1, .buffer = in};
  transports[0]->start(send);
  transports[0]->start(receive);
  OwnTime time;
  const Clock::time_point begin = Clock::now();
  transports[0]->close();
  EXPECT_LT(time.since(begin), milliseconds(500));
  EXPECT_FALSE(send.done);
  EXPECT_FALSE(receive.done);
}

TEST(UcxTransport, CarriesAGroupsCollectives) {
  constexpr int kRanks = 4;
  constexpr int64_t kRows = 10, kFeatures = 300;
  Meshes meshes(kRanks);
  const RowPartition partition(kRows, kRanks);
  on_threads(kRanks, [&](int rank) {
    std::vector<int> members = {0, 1, 2, 3};
    auto group = make_message_group(
        meshes[rank],
        {.members = members, .max_reduced_bytes = kRows * kFeatures * static_cast<int64_t>(sizeof(float))});
    ASSERT_TRUE(group) << group.error().message;
    for (int round = 0; round < 20; round++) {
      std::vector<float> partial(kRows * kFeatures, static_cast<float>(rank + round)),
          own(static_cast<size_t>(partition.count(rank) * kFeatures));
      const Status reduced =
          (*group)->reduce_scatter(ComputeView<2>(View<float, 2>(partial.data(), kRows, kFeatures)), partition,
                                   View<float, 2>(own.data(), partition.count(rank), kFeatures), {"reduce"});
      ASSERT_TRUE(reduced) << reduced.error().message;
      EXPECT_THAT(own, testing::Each(static_cast<float>(0 + 1 + 2 + 3 + 4 * round)));

      std::array<std::vector<uint32_t>, kRanks> out, in;
      std::array<std::span<const std::byte>, kRanks> sent;
      std::array<std::span<std::byte>, kRanks> received;
      for (int peer = 0; peer < kRanks; peer++) {
        out[peer].assign(static_cast<size_t>(100 * peer + 10 * round), word_of(rank, peer, round));
        in[peer].resize(static_cast<size_t>(100 * rank + 10 * round));
        sent[peer] = std::as_bytes(std::span(out[peer]));
        received[peer] = std::as_writable_bytes(std::span(in[peer]));
      }
      const Status exchanged = (*group)->all_to_all(sent, received, {"exchange"});
      ASSERT_TRUE(exchanged) << exchanged.error().message;
      for (int peer = 0; peer < kRanks; peer++) EXPECT_THAT(in[peer], testing::Each(word_of(peer, rank, round)));
    }
  });
}

}  // namespace
}  // namespace cachalot::ucx_test
