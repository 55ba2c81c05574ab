// `serve --enable-fault-tolerance`: the program as the parent of its ranks, alone and as one of two with a router as
// the third voter. Ranks and parents are killed: the others go on, who was killed comes back, and no answer changes.
#include <gtest/gtest.h>

#include <algorithm>
#include <csignal>

#include "base/process_test_util.h"
#include "base/text.h"
#include "processes/api_client.h"
#include "processes/program.h"
#include "processes/served_group.h"

namespace cachalot::test {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using Clock = std::chrono::steady_clock;
using End = StreamedAnswer::End;

template <class Done>
bool comes_true(Done done, seconds patience = seconds(90)) {
  for (const auto deadline = Clock::now() + patience; Clock::now() < deadline;) {
    if (done()) return true;
    std::this_thread::sleep_for(milliseconds(10));
  }
  return false;
}

class FaultTolerance : public testing::Test {
 protected:
  static constexpr int kTokens = 200;

  static std::vector<std::string> flags(uint16_t port, int tp_size) {
    return {"serve",
            "--model",
            nano_folder(),
            "--host=127.0.0.1",
            fmt::format("--port={}", port),
            fmt::format("--tensor-parallel-size={}", tp_size),
            "--num-gpu-blocks-override=256",
            "--max-model-len=2048",
            "--threads=1",
            "--drain-seconds=5",
            "--enable-fault-tolerance"};
  }
  bool serves(uint16_t port) {
    const auto answer = client_.get(port, "/load");
    return answer && answer->status == 200 && !boost::json::parse(answer->body).at("healing").as_bool();
  }
  StreamedAnswer ask(uint16_t port) { return client_.stream(port, completion_body("Tell me about 17 + 25.", kTokens)); }
  // Of a parent, by its --tensor-parallel-rank.
  static pid_t rank_of(const Program& parent, int tp_rank) {
    for (const pid_t pid : descendants_of(parent.pid())) {
      const std::string words = read_file(fmt::format("/proc/{}/cmdline", pid)).value_or("");
      if (words.contains(fmt::format("--tensor-parallel-rank={}", tp_rank))) return pid;
    }
    return -1;
  }

  const ApiClient client_;
};

TEST_F(FaultTolerance, AServerStartsItsRanksAgainTheLeaderToo) {
  const uint16_t port = free_port();
  Program parent(flags(port, 2));
  ASSERT_TRUE(comes_true([&] { return serves(port); })) << parent.output();
  const StreamedAnswer expected = ask(port);
  ASSERT_EQ(expected.end, End::kComplete) << expected.error << parent.output();
  for (const auto& [tp_rank, signal] : {std::pair(1, SIGKILL), {0, SIGKILL}, {1, SIGSTOP}}) {
    const ProcessHandle rank(rank_of(parent, tp_rank)), other(rank_of(parent, 1 - tp_rank));
    ASSERT_TRUE(rank && other);
    rank.signal(signal);
    EXPECT_TRUE(rank.ends_within(seconds(20))) << parent.output();
    ASSERT_TRUE(comes_true([&] { return rank_of(parent, tp_rank) > 0 && serves(port); })) << parent.output();
    EXPECT_EQ(ask(port).text, expected.text) << parent.output();
    EXPECT_FALSE(other.ends_within(milliseconds(0))) << "it goes on";
  }
  parent.signal(SIGTERM);
  EXPECT_EQ(parent.wait(seconds(20)), 0) << parent.output();
  EXPECT_TRUE(parent.wait_for_silence(seconds(5)));
}

TEST_F(FaultTolerance, WhatNoRankCanDoEndsIt) {
  std::vector<std::string> words = flags(free_port(), 2);
  words[2] = "/nowhere";
  Program no_model(words);
  EXPECT_EQ(no_model.wait(seconds(20)), 1);
  EXPECT_NE(no_model.output().find("/nowhere"), std::string::npos) << no_model.output();
  words = flags(free_port(), 2);
  words.insert(words.end(), {"--data-parallel-size=2", "--enable-expert-parallel"});
  Program no_agents(words);
  EXPECT_EQ(no_agents.wait(seconds(20)), 1);
  EXPECT_NE(no_agents.output().find("--agents"), std::string::npos) << no_agents.output();
}

// Two servers that step together, and a router that votes.
class FaultToleranceOfTwo : public FaultTolerance {
 protected:
  static std::string agents() {
    static const std::string addresses = fmt::format("127.0.0.1:{},127.0.0.1:{}", free_port(), free_port());
    return addresses;
  }
  std::unique_ptr<Program> start_server(int replica, bool has_witness) {
    std::vector<std::string> words = flags(ports_[static_cast<size_t>(replica)], 1);
    words.insert(words.end(), {"--data-parallel-size=2", fmt::format("--data-parallel-rank={}", replica),
                               "--enable-expert-parallel", "--data-parallel-address=127.0.0.1", "--survive=rank",
                               "--local-ranks=2", fmt::format("--local-rank={}", replica), "--agents=" + agents(),
                               "--state-dir=" + folder_ / fmt::format("server-{}", replica)});
    if (has_witness) words.emplace_back("--witness");
    return std::make_unique<Program>(words);
  }
  std::unique_ptr<Program> start_router() {
    return std::make_unique<Program>(std::vector<std::string>{
        "router", "--host=127.0.0.1", fmt::format("--port={}", router_port_), "--server-urls",
        fmt::format("http://127.0.0.1:{}", ports_[0]), fmt::format("http://127.0.0.1:{}", ports_[1]), "--witness",
        "--agents=" + agents(), "--state-dir=" + folder_ / "witness"});
  }

  const ScratchFolder folder_;
  const std::vector<uint16_t> ports_{free_port(), free_port()};
  const uint16_t router_port_ = free_port();
};

TEST_F(FaultToleranceOfTwo, WithAWitnessEitherGoesOnAndTakesTheOtherBack) {
  const auto router = start_router();
  std::vector<std::unique_ptr<Program>> servers;
  for (const int replica : {0, 1}) servers.push_back(start_server(replica, true));
  const auto all_serve = [&] { return serves(ports_[0]) && serves(ports_[1]); };
  const auto output = [&] { return router->output() + servers[0]->output() + servers[1]->output(); };
  ASSERT_TRUE(comes_true(all_serve)) << output();
  const StreamedAnswer expected = ask(ports_[0]);
  ASSERT_EQ(expected.end, End::kComplete) << expected.error << output();
  for (const int lost : {1, 0}) {
    servers[static_cast<size_t>(lost)]->signal(SIGKILL);
    const auto begun = Clock::now();
    EXPECT_EQ(ask(ports_[static_cast<size_t>(1 - lost)]).text, expected.text) << output();
    EXPECT_LT(Clock::now() - begun, seconds(30));
    EXPECT_EQ(ask(router_port_).text, expected.text) << output();
    servers[static_cast<size_t>(lost)] = start_server(lost, true);
    ASSERT_TRUE(comes_true(all_serve)) << output();
    EXPECT_EQ(ask(ports_[static_cast<size_t>(lost)]).text, expected.text) << output();
  }
}

TEST_F(FaultToleranceOfTwo, WithoutOneNobodyServesUntilAPersonHasSaidThatTheOtherIsLost) {
  std::vector<std::unique_ptr<Program>> servers;
  for (const int replica : {0, 1}) servers.push_back(start_server(replica, false));
  const auto output = [&] { return servers[0]->output() + servers[1]->output(); };
  ASSERT_TRUE(comes_true([&] { return serves(ports_[0]) && serves(ports_[1]); })) << output();
  const auto confirm = [&](const std::string& node) {
    Program confirm({"confirm-lost", node, "--yes", "--agents=" + agents()});
    const auto status = confirm.wait(seconds(20));
    return std::pair(status.value_or(-1), confirm.output());
  };
  EXPECT_EQ(confirm("1").first, 1) << "it is there";
  servers[1]->signal(SIGKILL);
  std::this_thread::sleep_for(seconds(3));
  EXPECT_LT(ApiClient(seconds(3)).stream(ports_[0], completion_body("17", 8), [](int) { return true; }).num_tokens, 8)
      << "without a majority" << output();
  const auto [status, said] = confirm("1");
  EXPECT_EQ(status, 0) << said << output();
  EXPECT_NE(said.find("They are no majority"), std::string::npos) << said;
  ASSERT_TRUE(comes_true([&] { return serves(ports_[0]); })) << output();
  EXPECT_EQ(ask(ports_[0]).end, End::kComplete) << output();
  servers[1] = start_server(1, false);
  ASSERT_TRUE(comes_true([&] { return serves(ports_[1]); })) << output();
  EXPECT_EQ(ask(ports_[1]).end, End::kComplete) << output();
}

}  // namespace
}  // namespace cachalot::test
