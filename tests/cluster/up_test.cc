// `cachalot up`, `down` and `status` as a person uses them, with real processes.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <future>
#include <iterator>
#include <set>
#include <thread>

#include "cluster/up_cluster.h"
#include "config/end_report.h"
#include "processes/api_client.h"
#include "processes/served_group.h"

namespace cachalot::test {
namespace {

using std::chrono::seconds;
using testing::AllOf;
using testing::ContainsRegex;
using testing::HasSubstr;
using testing::IsEmpty;
using End = StreamedAnswer::End;

const char* const kQuestion = "Which one is larger? 3.8 or 3.11";

// Names that ranks may leave in the system: shared memory, abstract sockets.
std::set<std::string> names_in_the_system() {
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator("/dev/shm")) names.insert(entry.path());
  std::ifstream sockets("/proc/net/unix");
  for (std::string line; std::getline(sockets, line);) {
    const size_t name = line.find("@cachalot");
    if (name != std::string::npos) names.insert(line.substr(name));
  }
  return names;
}

// Those of the names that stay. Ranks of other tests, which may run at the same time, have names too, but not for long.
std::set<std::string> names_that_stay(std::set<std::string> names, seconds patience) {
  const auto deadline = std::chrono::steady_clock::now() + patience;
  while (!names.empty() && std::chrono::steady_clock::now() < deadline) {
    const std::set<std::string> now = names_in_the_system();
    std::erase_if(names, [&](const std::string& name) { return !now.contains(name); });
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  return names;
}

bool answers(const UpCluster& cluster, const ApiClient& client) {
  const StreamedAnswer answer = client.stream(
      cluster.router_port(),
      {{"model", "nano"}, {"prompt", kQuestion}, {"max_tokens", 300}, {"temperature", 0}, {"stream", true}});
  return answer.end == End::kComplete && answer.text.find("3.8 is larger") != std::string::npos;
}

TEST(Cluster, WhatSshSaysOfItsFailureIsSaidWithTheNodeAndWhatToTry) {
  const ScratchFolder folder;
  std::filesystem::create_directory(folder / "bin");
  std::ofstream(folder / "bin/ssh")
      << "#!/bin/sh\necho 'a banner' >&2\nprintf 'Permission denied \\033[1m(publickey).\\r\\n' "
         ">&2\nexit 255\n";
  std::filesystem::permissions(folder / "bin/ssh", std::filesystem::perms::owner_all);
  std::ofstream(folder / "cluster.yaml") << fmt::format(
      "name: far\nmodel: {}\nlauncher: ssh\nport: {}\nnodes: [{{address: 127.0.0.1, devices: 1, ssh: {{user: serve, "
      "port: "
      "2222}}}}]\n",
      nano_folder(), free_port());
  Program up({.environment = {fmt::format("PATH={}:{}", folder / "bin", std::getenv("PATH"))}},
             {"up", folder / "cluster.yaml", "--run-folder", folder / "run"});
  const auto line = up.wait_for_line("cannot be reached", seconds(20));
  ASSERT_TRUE(line) << up.output();
  EXPECT_THAT(line->text,
              HasSubstr("ssh failed: 'Permission denied \\x1b[1m(publickey).'; try the same by hand: ssh -T "));
  EXPECT_THAT(line->text, HasSubstr("-l serve -p 2222 -- 127.0.0.1 true"));
  up.signal(SIGINT);
  EXPECT_TRUE(up.wait(seconds(20))) << up.output();
}

TEST(Cluster, ServesAgainAfterARankWasLostAndLeavesNothingBehind) {
  const ApiClient client;
  const std::set<std::string> names_before = names_in_the_system();  // of others, who may have left them for good
  UpCluster cluster({.more = "restart: {first-wait: 0.2}\n"});
  ASSERT_TRUE(cluster.wait_until_ready()) << cluster.logs();
  EXPECT_TRUE(answers(cluster, client)) << cluster.logs();

  const std::vector<pid_t> ranks = cluster.rank_pids();
  ASSERT_EQ(ranks.size(), 4U) << cluster.logs();
  kill(ranks[3], SIGKILL);
  ASSERT_EQ(cluster.wait_for_restart(0), 1) << cluster.logs();
  EXPECT_THAT(std::string(cluster.state().at("replicas").at(0).at("loss").as_string()),
              HasSubstr("its group has lost a rank, rank 3 ("))
      << "a cause, and no line of a log";
  EXPECT_TRUE(answers(cluster, client)) << cluster.logs();
  EXPECT_THAT(still_there(ranks, seconds(0)), IsEmpty()) << "the group is started anew as a whole";

  const std::vector<pid_t> new_ranks = cluster.rank_pids();
  ASSERT_EQ(new_ranks.size(), 4U);
  kill(new_ranks[0], SIGSTOP);  // a leader: it can neither serve nor end by itself
  ASSERT_EQ(cluster.wait_for_restart(1), 2) << cluster.logs();
  EXPECT_TRUE(answers(cluster, client)) << cluster.logs();

  const std::vector<pid_t> all = cluster.all_pids();
  EXPECT_GE(all.size(), 8U) << "watcher, leases, ranks, router";
  const auto down = cluster.run("down");
  EXPECT_EQ(down->wait(seconds(30)), 0) << down->output();
  EXPECT_EQ(cluster.watcher().wait(seconds(1)), 0) << cluster.logs();
  EXPECT_THAT(still_there(all, seconds(0)), IsEmpty());
  std::set<std::string> names = names_in_the_system();
  std::erase_if(names, [&](const std::string& name) { return names_before.contains(name); });
  EXPECT_THAT(names_that_stay(std::move(names), seconds(30)), IsEmpty());
  EXPECT_TRUE(std::filesystem::is_empty(cluster.folder() + "run"));
  EXPECT_EQ(cluster.run("down")->wait(seconds(10)), 1) << "it is not up";
}

TEST(Cluster, ReplicasThatRunApartAreStartedAnewApart) {
  const ApiClient client;
  UpCluster cluster({.expert_parallel = false, .more = "restart: {first-wait: 0.2}\n"});
  ASSERT_TRUE(cluster.wait_until_ready()) << cluster.logs();
  const std::vector<pid_t> ranks = cluster.rank_pids();
  ASSERT_EQ(ranks.size(), 4U) << cluster.logs();
  kill(ranks[3], SIGKILL);
  EXPECT_TRUE(answers(cluster, client)) << "by the other replica\n" << cluster.logs();
  ASSERT_EQ(cluster.wait_for_restart(0, seconds(60), 1), 1) << cluster.logs();
  EXPECT_EQ(cluster.num_restarts(0), 0);
  const std::vector<pid_t> ranks_now = cluster.rank_pids();
  ASSERT_EQ(ranks_now.size(), 4U);
  EXPECT_EQ(ranks_now[0], ranks[0]);
  EXPECT_NE(ranks_now[2], ranks[2]);
}

TEST(Cluster, TheRouterIsStartedAnewForItself) {
  const ApiClient client;
  UpCluster cluster({.more = "restart: {first-wait: 0.2}\n"});
  ASSERT_TRUE(cluster.wait_until_ready()) << cluster.logs();
  const std::vector<pid_t> ranks = cluster.rank_pids();
  const pid_t router = cluster.router_pid();
  ASSERT_GT(router, 0);
  kill(router, SIGKILL);
  ASSERT_TRUE(cluster.wait_for_router_restart()) << cluster.logs();
  EXPECT_TRUE(answers(cluster, client)) << cluster.logs();
  EXPECT_EQ(cluster.rank_pids(), ranks);
}

TEST(Cluster, StatusShowsWhereEachRankIsAndWhatItHolds) {
  UpCluster cluster;
  ASSERT_TRUE(cluster.wait_until_ready()) << cluster.logs();
  const auto program = cluster.run("status");
  ASSERT_EQ(program->wait(seconds(20)), 0) << program->output();
  program->wait_for_silence(seconds(5));
  const std::string text = program->output();
  EXPECT_THAT(text, HasSubstr("2 x 2 ranks, experts over all of them"));
  EXPECT_THAT(text, ContainsRegex("8 of 32(.*\n.*8 of 32){3}")) << "each of four";
  for (const pid_t pid : cluster.rank_pids()) EXPECT_THAT(text, HasSubstr(std::to_string(pid)));
  EXPECT_THAT(cluster.watcher().output(), HasSubstr("8 of 32")) << "`up` shows the map, too";
}

// What they ask of the servers is open to all.
TEST(Cluster, StatusAndDownNeedNoKeyOfTheApi) {
  UpCluster cluster({.api_key = "secret"});
  ASSERT_TRUE(cluster.wait_until_ready()) << cluster.logs();
  EXPECT_EQ(ApiClient().get(cluster.router_port(), "/replicas")->status, 401);
  EXPECT_EQ(cluster.rank_pids().size(), 4U) << "as the servers tell `status`";
  const auto down = cluster.run("down");
  EXPECT_EQ(down->wait(seconds(30)), 0) << down->output();
}

TEST(Cluster, EndsWithItsWatcherWhateverEndsIt) {
  UpCluster cluster;
  ASSERT_TRUE(cluster.wait_until_ready()) << cluster.logs();
  const std::vector<pid_t> all = cluster.all_pids();
  const std::vector<pid_t> ranks = cluster.rank_pids();
  ASSERT_EQ(ranks.size(), 4U);
  kill(ranks[2], SIGSTOP);
  cluster.watcher().signal(SIGKILL);
  EXPECT_THAT(still_there(all, seconds(10)), IsEmpty());
  EXPECT_EQ(cluster.run("status")->wait(seconds(10)), 1);
}

TEST(Cluster, InTheBackgroundItGoesOnWhenItIsReady) {
  UpCluster cluster({.flags = {"--detach"}});
  EXPECT_EQ(cluster.watcher().wait(seconds(60)), 0) << cluster.logs();
  EXPECT_THAT(cluster.watcher().output(), HasSubstr("ready: OpenAI's API at "));
  const std::string flag = " --run-folder " + cluster.folder() + "run";
  EXPECT_THAT(cluster.watcher().output(), HasSubstr(" down nano" + flag + "` stops it"));
  for (const char* second_flag : {"--detach", "--port=0"}) {
    const auto second = cluster.run("up", {second_flag});
    EXPECT_EQ(second->wait(seconds(10)), 1);
    EXPECT_EQ(second->lines().size(), 1U) << second->output();
    EXPECT_THAT(second->output(), HasSubstr("cluster nano is already up"));
    EXPECT_THAT(second->output(), HasSubstr("`cachalot down nano" + flag + "` stops it"));
  }
  EXPECT_TRUE(answers(cluster, ApiClient())) << cluster.logs();
  const std::vector<pid_t> ranks = cluster.rank_pids();
  EXPECT_EQ(cluster.run("down", {"--now"})->wait(seconds(30)), 0);
  EXPECT_THAT(still_there(ranks, seconds(0)), IsEmpty());
}

TEST(Cluster, StoppedTwiceItEndsAnswersThatStillRun) {
  const ApiClient client;
  UpCluster cluster({.more = "drain-seconds: 60\n"});
  ASSERT_TRUE(cluster.wait_until_ready()) << cluster.logs();
  const std::vector<pid_t> all = cluster.all_pids();
  boost::json::object body = completion_body(boost::json::value("1"), 2000);
  body["model"] = "nano";
  std::promise<void> runs;
  auto answer = std::async(std::launch::async, [&] {
    bool told = false;
    return client.stream(cluster.router_port(), body, [&](int) {
      if (!std::exchange(told, true)) runs.set_value();
      return true;
    });
  });
  ASSERT_EQ(runs.get_future().wait_for(seconds(20)), std::future_status::ready) << cluster.logs();
  EXPECT_EQ(cluster.run("down", {"--now"})->wait(seconds(20)), 0) << cluster.logs();
  EXPECT_NE(answer.get().end, End::kComplete);
  EXPECT_THAT(still_there(all, seconds(0)), IsEmpty());
}

TEST(Cluster, AStartThatFailsSaysWhyAndEnds) {
  const ScratchFolder scratch;
  std::ofstream(scratch / "a.yaml") << "model: nowhere\nport: 0\ndata-parallel-rpc-port: 0\nrouter: false\n";
  Program up({"up", scratch / "a.yaml", "--run-folder", scratch / "run"});
  EXPECT_EQ(up.wait(seconds(20)), 1);
  up.wait_for_silence(seconds(5));
  EXPECT_THAT(up.output(), HasSubstr("replica 0 on 127.0.0.1 ended with status 1: nowhere: there is no such folder"));
}

// What a log says last is no cause: this one's has no complaint in it at all.
TEST(Cluster, TheCauseOfALossIsWhatTheSystemSays) {
  UpCluster cluster({.expert_parallel = false, .more = "restart: {first-wait: 0.2}\n"});
  ASSERT_TRUE(cluster.wait_until_ready()) << cluster.logs();
  const std::vector<pid_t> ranks = cluster.rank_pids();
  ASSERT_EQ(ranks.size(), 4U) << cluster.logs();
  kill(ranks[2], SIGILL);  // a leader: its server
  ASSERT_EQ(cluster.wait_for_restart(0, seconds(60), 1), 1) << cluster.logs();
  EXPECT_EQ(cluster.state().at("replicas").at(1).at("loss").as_string(), "was ended by signal 4 (Illegal instruction)");
}

TEST(Cluster, APortThatIsTakenIsNamedBeforeAnythingStarts) {
  UpCluster cluster;
  ASSERT_TRUE(cluster.wait_until_ready()) << cluster.logs();
  std::ofstream(cluster.folder() + "second.yaml")
      << fmt::format("model: nowhere\nname: second\nrouter: {{port: {}}}\n", cluster.router_port());
  Program second({"up", cluster.folder() + "second.yaml", "--run-folder", cluster.folder() + "run"});
  EXPECT_EQ(second.wait(seconds(10)), 1);
  EXPECT_TRUE(second.wait_for_line(
      fmt::format("127.0.0.1:{} cannot be listened on: Address already in use", cluster.router_port()), seconds(5)))
      << second.output();
}

TEST(Cluster, AnUnknownFlagOfAServerIsNamedWithItsLine) {
  const ScratchFolder scratch;
  std::ofstream(scratch / "a.yaml") << "model: m\nserve:\n  block-size: 64\n  max-model-length: 2048\n";
  Program up({"up", scratch / "a.yaml", "--run-folder", scratch / "run"});
  EXPECT_EQ(up.wait(seconds(10)), 1);
  EXPECT_TRUE(
      up.wait_for_line("a.yaml:4:21: serve.max-model-length: no such flag of `cachalot serve`; the nearest is "
                       "max-model-len",
                       seconds(5)))
      << up.output();
}

TEST(Lease, TellsAsDataHowItsProgramEnded) {
  const auto report_of = [](std::vector<std::string> words) {
    words.insert(words.begin(), {CACHALOT_PROGRAM, "lease", "--report-end", "--"});
    const auto lease = run_program({.words = std::move(words), .input = true}, seconds(20));
    return lease ? parse_end_report(lease->output) : std::nullopt;
  };
  const auto killed = report_of({"sh", "-c", "echo '{\"version\":1,\"status\":0}'; kill -SEGV $$"});
  ASSERT_TRUE(killed);
  EXPECT_EQ(killed->text(), "was ended by signal 11 (Segmentation fault)");
  const auto failed = report_of({CACHALOT_PROGRAM, "status", "nowhere", "--run-folder", "/proc/nowhere"});
  ASSERT_TRUE(failed && failed->error);
  EXPECT_THAT(failed->text(), AllOf(HasSubstr("ended with status 1: "), HasSubstr("/proc/nowhere")));
  const auto refused = report_of({CACHALOT_PROGRAM, "serve", "--model", "m", "--no-such-flag"});
  ASSERT_TRUE(refused && refused->error);
  EXPECT_THAT(refused->text(), HasSubstr("no-such-flag"));
}

TEST(Lease, EndsWithItsInputAndWithItAllThatItStarted) {
  Process lease =
      Process::start({.words = {CACHALOT_PROGRAM, "lease", "--", "sh", "-c", "sleep 1000 & kill -STOP $!; sleep 1000"},
                      .input = true})
          .value();
  std::vector<pid_t> below;
  for (int attempt = 0; attempt < 500 && below.size() < 3; attempt++) {
    usleep(10'000);
    below = descendants_of(lease.pid());
  }
  EXPECT_EQ(below.size(), 3U) << "a shell and two that sleep";
  lease.close_input();
  EXPECT_EQ(lease.wait(), 128 + SIGKILL);
  EXPECT_THAT(still_there(below, seconds(0)), IsEmpty());
}

}  // namespace
}  // namespace cachalot::test
