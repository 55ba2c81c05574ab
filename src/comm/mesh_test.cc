#include "comm/mesh.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <thread>

#include "base/check.h"
#include "comm/local_mesh.h"

namespace cachalot {
namespace {

using std::chrono::milliseconds;
using testing::AllOf;
using testing::HasSubstr;
using Meshes = std::vector<std::unique_ptr<Mesh>>;

Meshes local_mesh(int num_ranks, MeshOptions options = {}, uint32_t ring_bytes = 0) {
  auto meshes = make_local_mesh(num_ranks, options, ring_bytes);
  CHECK(meshes, "{}", meshes.error().message);
  return std::move(*meshes);
}

// body(mesh) on a thread a rank.
template <class Body>
void on_ranks(Meshes& meshes, Body body) {
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
  Meshes meshes = local_mesh(1);
  EXPECT_TRUE(meshes[0]->wait({}, {}, {"nothing"}));
  EXPECT_TRUE(meshes[0]->traffic().empty());
}

TEST(Mesh, EveryRankGetsWhatEveryOtherSends) {
  for (const int num_ranks : {2, 3, 8}) {
    Meshes meshes = local_mesh(num_ranks);
    on_ranks(meshes, [&](Mesh& mesh) {
      for (int step = 0; step < 20; step++)
        exchange(mesh, step, [&](int from, int to) { return random_size(from, to, step, 20'000); });
    });
  }
}

TEST(Mesh, MessagesMayBeFarLongerThanARing) {
  Meshes meshes = local_mesh(3, {}, 4096);
  on_ranks(meshes, [&](Mesh& mesh) {
    for (int step = 0; step < 6; step++)
      exchange(mesh, step, [&](int from, int to) { return random_size(from, to, step, 3 << 20); });
  });
}

TEST(Mesh, AMissedDeadlineNamesTheSiteAndWhoIsMissing) {
  Meshes meshes =
      local_mesh(3, {.rank_names = {"rank 0 (a)", "rank 1 (b)", "rank 2 (c)"}, .deadline = milliseconds(30)});
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
  Meshes meshes = local_mesh(2);
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

}  // namespace
}  // namespace cachalot
