// A process that is told to end, at any moment of its life, ends soon and with all that it started.
#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <thread>

#include "base/file.h"
#include "base/ports.h"
#include "base/process_test_util.h"
#include "base/stop_signals.h"
#include "cluster/up_cluster.h"
#include "processes/api_client.h"
#include "processes/served_group.h"

namespace cachalot::test {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using std::chrono::steady_clock;
using testing::AnyOf;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

constexpr seconds kPatience{30};
constexpr milliseconds kAtOnce{2'000};
constexpr std::array kSignals{SIGTERM, SIGINT, SIGHUP};

// Ends the program by the signal; it, and every process below it, must be gone in time.
std::optional<int> end_at_once(Program& program, int number) {
  OwnTime time;
  std::vector<pid_t> below = descendants_of(program.pid());
  const auto begin = steady_clock::now();
  program.signal(number);
  const std::optional<int> status = program.wait(kPatience);
  const std::vector<pid_t> left = still_there(std::move(below), milliseconds(500));
  EXPECT_LT(time.since(begin), kAtOnce) << signal_name(number) << "\n" << program.output();
  EXPECT_THAT(left, IsEmpty()) << signal_name(number);
  return status;
}

std::vector<std::string> serve_words(const std::string& model, std::vector<std::string> more = {}) {
  std::vector<std::string> words{"serve", "--model", model, "--host", "127.0.0.1", "--port", "0"};
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

std::unique_ptr<Program> serve(const std::string& model, std::vector<std::string> more = {}) {
  return std::make_unique<Program>(serve_words(model, std::move(more)));
}

const std::vector<std::string> kSmall{"--num-gpu-blocks-override", "64", "--max-model-len", "1024"};
std::vector<std::string> small(std::vector<std::string> more = {}) {
  more.insert(more.end(), kSmall.begin(), kSmall.end());
  return more;
}

TEST(Signals, EndAServerThatWaitsForOthers) {
  for (const int rank : {0, 1}) {
    for (const int number : kSignals) {
      const auto server =
          serve(nano_folder(), small({"--enable-expert-parallel", "--data-parallel-size", "2", "--tensor-parallel-size",
                                      "2", "--data-parallel-rank", std::to_string(rank), "--data-parallel-rpc-port",
                                      std::to_string(free_port())}));
      for (const char* waiting : rank == 0 ? std::vector{"rank 1 has found rank 0"}
                                           : std::vector{"rank 2 waits for rank 0", "rank 3 waits for rank 0"})
        ASSERT_TRUE(server->wait_for_line(waiting, kPatience)) << server->output();
      EXPECT_EQ(descendants_of(server->pid()).size(), 1U) << server->output();
      EXPECT_EQ(end_at_once(*server, number), 128 + number) << server->output();
    }
  }
}

// UCX takes SIGHUP from the program when it is loaded, and its handler crashes, or swallows it, until it is taken back.
TEST(Signals, AHangUpWhileLibrariesAreLoadedEndsTheProgram) {
  for (int moment = 0; moment < 60; moment++) {
    Program program({"router", "--host", "127.0.0.1", "--port", "0", "--server-urls", "http://127.0.0.1:9"});
    std::this_thread::sleep_for(milliseconds(moment));
    program.signal(SIGHUP);
    EXPECT_THAT(program.wait(kPatience), AnyOf(128 + SIGHUP, 0)) << moment << " ms\n" << program.output();
  }
}

// At any moment of a start: 0 is a server that has drained.
TEST(Signals, EndAServerThatStarts) {
  for (const milliseconds moment :
       {milliseconds(0), milliseconds(20), milliseconds(80), milliseconds(200), milliseconds(400), milliseconds(800)}) {
    for (const int number : kSignals) {
      const auto server = serve(nano_folder(), small({"--tensor-parallel-size", "4"}));
      std::this_thread::sleep_for(moment);
      EXPECT_THAT(end_at_once(*server, number), AnyOf(128 + number, 0)) << server->output();
    }
  }
}

TEST(Signals, ARankThatIsToldToEndWhileAllStartTellsWhy) {
  const auto server =
      serve(nano_folder(), small({"--enable-expert-parallel", "--data-parallel-size", "2", "--tensor-parallel-size",
                                  "2", "--data-parallel-rpc-port", std::to_string(free_port())}));
  ASSERT_TRUE(server->wait_for_line("rank 1 has found rank 0", kPatience)) << server->output();
  const std::vector<pid_t> ranks = descendants_of(server->pid());
  ASSERT_EQ(ranks.size(), 1U);
  kill(ranks[0], SIGTERM);
  EXPECT_EQ(server->wait(kPatience), 1) << server->output();
  EXPECT_THAT(server->output(), HasSubstr("was ended by signal 15 (Terminated): rank 1 ("));
}

// Random weights that take a while to load.
class SlowModel : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = new ScratchFolder;
    auto config = read_file(nano_folder() + "/config.json").value();
    for (const auto& [before, after] :
         {std::pair("\"hidden_size\": 128", "\"hidden_size\": 1024"),
          std::pair("\"moe_intermediate_size\": 64", "\"moe_intermediate_size\": 512"),
          std::pair("\"num_hidden_layers\": 4", "\"num_hidden_layers\": 5"),
          std::pair("\"num_nextn_predict_layers\": 1", "\"num_nextn_predict_layers\": 0")})
      config.replace(config.find(before), std::string_view(before).size(), after);
    ASSERT_TRUE(write_file(*folder_ / "shape.json", config));
    Program synth({"synth", "--config", *folder_ / "shape.json", "--out", folder()});
    ASSERT_EQ(synth.wait(seconds(200)), 0) << synth.output();
    for (const char* name : {"tokenizer.json", "tokenizer_config.json"})
      std::filesystem::copy(nano_folder() + "/" + name, folder());
  }
  static void TearDownTestSuite() { delete std::exchange(folder_, nullptr); }
  static std::string folder() { return *folder_ / "slow"; }
  static std::string weights() {
    for (const std::string& name : names_in_folder(folder()))
      if (name.ends_with(".safetensors")) return folder() + "/" + name;
    return {};
  }

  static inline ScratchFolder* folder_ = nullptr;
};

TEST_F(SlowModel, EndsAtASignalWhileItLoads) {
  for (const int number : kSignals) {
    for (const char* tp_size : {"1", "2"}) {
      const auto server = serve(folder(), small({"--tensor-parallel-size", tp_size}));
      ASSERT_TRUE(server->wait_for_line("memory of this rank", kPatience)) << server->output();
      EXPECT_EQ(end_at_once(*server, number), 128 + number) << server->output();
      EXPECT_THAT(server->output(), Not(HasSubstr("ready: http")));
    }
  }
}

TEST_F(SlowModel, AWeightFileThatIsCutShortIsNamed) {
  for (const char* tp_size : {"1", "2"}) {
    const std::string copy = *folder_ / fmt::format("cut{}", tp_size);
    std::filesystem::copy(folder(), copy);
    const std::string file = copy + "/" + std::filesystem::path(weights()).filename().string();
    const auto server = serve(copy, small({"--tensor-parallel-size", tp_size}));
    ASSERT_TRUE(server->wait_for_line("memory of this rank", kPatience)) << server->output();
    std::filesystem::resize_file(file, 1 << 16);
    EXPECT_EQ(server->wait(kPatience), 1) << server->output();
    EXPECT_THAT(server->output(), HasSubstr("cachalot: " + file + ": the file was cut short while it was read"));
  }
}

TEST(Signals, AServerDrainsAndASecondSignalEndsItsAnswers) {
  const ApiClient client;
  for (const int number : kSignals) {
    const auto port = free_port();
    auto words = serve_words(nano_folder(), {"--tensor-parallel-size", "2", "--max-model-len", "4096"});
    words[6] = std::to_string(port);
    Program server(words);
    ASSERT_TRUE(server.wait_for_line("ready: http", kPatience)) << server.output();
    std::atomic<bool> has_begun = false;
    std::jthread reader([&] {
      client.stream(port, completion_body("What is 17 + 25?", 4'000), [&](int) { return has_begun = true; });
    });
    while (!has_begun) std::this_thread::sleep_for(milliseconds(5));
    server.signal(number);
    EXPECT_TRUE(server.wait_for_line(signal_name(number) + ": no new requests", kPatience)) << server.output();
    EXPECT_EQ(end_at_once(server, number), 0) << server.output();
  }
}

TEST(Signals, AServerWithoutRequestsEndsAtOnceAndWell) {
  for (const int number : kSignals) {
    const auto server = serve(nano_folder(), small({"--tensor-parallel-size", "2"}));
    ASSERT_TRUE(server->wait_for_line("ready: http", kPatience)) << server->output();
    EXPECT_EQ(end_at_once(*server, number), 0) << server->output();
  }
}

// As systemd does to all processes of a service: the ranks do not break the drain of their leader.
TEST(Signals, RanksLeaveTheDrainToTheirLeader) {
  const auto server = serve(nano_folder(), small({"--tensor-parallel-size", "2"}));
  ASSERT_TRUE(server->wait_for_line("ready: http", kPatience)) << server->output();
  for (const pid_t rank : descendants_of(server->pid())) kill(rank, SIGTERM);
  EXPECT_EQ(server->wait(milliseconds(500)), std::nullopt) << server->output();
  EXPECT_EQ(end_at_once(*server, SIGTERM), 0) << server->output();
  EXPECT_THAT(server->output(), Not(HasSubstr(" E ")));
}

TEST(Signals, EndTheRouter) {
  for (const int number : kSignals) {
    Program router({"router", "--host", "127.0.0.1", "--port", "0", "--server-urls", "http://127.0.0.1:9"});
    ASSERT_TRUE(router.wait_for_line("routing http", kPatience)) << router.output();
    EXPECT_EQ(end_at_once(router, number), 0) << router.output();
  }
}

TEST(Signals, EndUpAtAnyMomentOfItsStart) {
  for (const milliseconds moment : {milliseconds(0), milliseconds(30), milliseconds(100), milliseconds(250),
                                    milliseconds(400), milliseconds(700), milliseconds(1'200)}) {
    for (const int number : {SIGTERM, SIGINT}) {
      UpCluster cluster;
      std::this_thread::sleep_for(moment);
      const std::vector<pid_t> all = cluster.all_pids();
      EXPECT_THAT(end_at_once(cluster.watcher(), number), AnyOf(128 + number, 0)) << cluster.logs();
      EXPECT_THAT(still_there(all, milliseconds(0)), IsEmpty()) << moment.count() << " ms\n" << cluster.logs();
      EXPECT_EQ(cluster.run("status")->wait(kPatience), 1);
    }
  }
}

TEST(Signals, DownStopsAClusterThatStarts) {
  for (const milliseconds moment : {milliseconds(50), milliseconds(300), milliseconds(800)}) {
    UpCluster cluster;
    std::this_thread::sleep_for(moment);
    const auto down = cluster.run("down");
    const std::optional<int> status = down->wait(seconds(5));
    ASSERT_TRUE(status) << down->output();
    if (*status != 0) {
      EXPECT_THAT(down->output(), HasSubstr("is not up")) << "it had not begun";
      continue;
    }
    EXPECT_THAT(cluster.watcher().wait(seconds(1)), AnyOf(128 + SIGTERM, 0)) << cluster.logs();
  }
}

TEST(Signals, EndUpInTheBackgroundThroughTheOneThatWaits) {
  for (const milliseconds moment : {milliseconds(100), milliseconds(300)}) {
    UpCluster cluster({.flags = {"--detach"}});
    std::this_thread::sleep_for(moment);
    const std::optional<int> status = end_at_once(cluster.watcher(), SIGTERM);
    EXPECT_THAT(status, AnyOf(128 + SIGTERM, 0)) << cluster.logs();
    EXPECT_EQ(cluster.run("down", {"--now"})->wait(kPatience), status == 0 ? 0 : 1) << "0: it was ready, and goes on";
  }
}

TEST(Signals, EndCommandsThatOnlyWork) {
  const ScratchFolder folder;
  for (const int number : kSignals) {
    Program bench({"bench", "alltoall", "--ranks", "2"});
    std::this_thread::sleep_for(milliseconds(300));
    EXPECT_THAT(end_at_once(bench, number), AnyOf(128 + number, 0)) << bench.output();
    Program logits({"logits", "--model", nano_folder(), "--tokens", "1,2,3", "--tensor-parallel-size", "4"});
    std::this_thread::sleep_for(milliseconds(150));
    EXPECT_THAT(end_at_once(logits, number), AnyOf(128 + number, 0)) << logits.output();
    Program check({"check"});
    std::this_thread::sleep_for(milliseconds(150));
    EXPECT_THAT(end_at_once(check, number), AnyOf(128 + number, 0, 1)) << check.output();
  }
}

TEST(Signals, ALoadThatIsStoppedSaysWhatWasMeasured) {
  Program bench({"bench", "serve", "--instant-server", "--num-prompts", "2000", "--request-rate", "20", "--input-len",
                 "4", "--output-len", "4"});
  std::this_thread::sleep_for(seconds(4));
  EXPECT_EQ(end_at_once(bench, SIGINT), 128 + SIGINT) << bench.output();
  EXPECT_THAT(bench.output(), HasSubstr("Successful requests"));
  EXPECT_THAT(bench.output(), HasSubstr("Stopped after"));
}

TEST(Signals, AReaderOfTheLogThatGoesAwayEndsNothing) {
  std::array<int, 2> ends{};
  ASSERT_EQ(pipe2(ends.data(), O_CLOEXEC), 0);
  const uint16_t port = free_port();
  auto words = serve_words(nano_folder(), small());
  words[6] = std::to_string(port);
  words.insert(words.begin(), CACHALOT_PROGRAM);
  Process server = Process::start({.words = words, .output = ends[1]}).value();
  close(ends[1]);
  std::string said;
  while (!said.contains("ready: http")) {
    std::array<char, 4096> part{};
    ASSERT_TRUE(readable_within(ends[0], kPatience));
    const ssize_t size = read(ends[0], part.data(), part.size());
    ASSERT_GT(size, 0) << said;
    said.append(part.data(), static_cast<size_t>(size));
  }
  close(ends[0]);
  const ApiClient client;
  for (int request = 0; request < 3; request++) {
    const auto answer = client.complete(port, completion_body("What is 17 + 25?", 4));
    ASSERT_TRUE(answer);
    EXPECT_EQ(answer->status, 200);
  }
  server.signal(SIGTERM);  // it has something to say to that
  EXPECT_EQ(server.wait_for(kPatience), 0);
}

TEST(Signals, AHangUpThatIsIgnoredStaysSo) {
  auto words = serve_words(nano_folder(), small());
  std::string line = "trap '' HUP; exec";
  for (const std::string& word : words) line += " " + word;
  line.insert(line.find(" serve"), std::string(" ") + CACHALOT_PROGRAM);
  Program server({"-c", line}, "/bin/sh");
  ASSERT_TRUE(server.wait_for_line("ready: http", kPatience)) << server.output();
  server.signal(SIGHUP);
  EXPECT_EQ(server.wait(milliseconds(700)), std::nullopt) << server.output();
  EXPECT_EQ(end_at_once(server, SIGTERM), 0);
}

TEST(Files, WhatIsNoFileIsNamedInsteadOfWaitedFor) {
  for (const char* name : {"config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json",
                           "model.safetensors", "chat_template.jinja"}) {
    for (const char* kind : {"a FIFO", "a directory"}) {
      const ScratchFolder folder;
      std::filesystem::copy(nano_folder(), folder / "nano", std::filesystem::copy_options::recursive);
      const std::string path = folder / "nano/" + name;
      std::filesystem::remove(path);
      const bool is_fifo = std::string_view(kind) == "a FIFO";
      ASSERT_EQ(is_fifo ? mkfifo(path.c_str(), 0600) : mkdir(path.c_str(), 0700), 0);
      const auto server = serve(folder / "nano", small());
      EXPECT_EQ(server->wait(kPatience), 1) << name << " " << kind << "\n" << server->output();
      EXPECT_THAT(server->output(), HasSubstr(fmt::format("{} is {}", path, kind)));
    }
  }
}

TEST(Files, OfCommandsAreFilesToo) {
  const ScratchFolder folder;
  const std::string fifo = folder / "fifo";
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  for (const std::string& path : {fifo, folder / ""}) {
    for (const std::vector<std::string>& words :
         {std::vector<std::string>{"up", path, "--run-folder", folder / "run"},
          {"check", path},
          {"eval", "--url", "http://127.0.0.1:9/v1", "--questions", path},
          {"synth", "--config", path, "--out", folder / "out"},
          {"check", "--plan", "--model", path},
          serve_words(nano_folder(), {"--group-secret-file", path, "--tensor-parallel-size", "2"})}) {
      Program program(words);
      const auto status = program.wait(kPatience);
      EXPECT_THAT(status.value_or(0), Not(0)) << words[0] << "\n" << program.output();
      EXPECT_LT(status.value_or(134), 128) << words[0] << "\n" << program.output();
      EXPECT_THAT(program.output(), HasSubstr(path)) << words[0];
    }
  }
}

// Of 10 GB, which would take the machine's memory.
TEST(Files, LargeOnesAreRefusedByNameBeforeTheyAreRead) {
  const ScratchFolder folder;
  std::filesystem::copy(nano_folder(), folder / "nano", std::filesystem::copy_options::recursive);
  const auto grow = [](const std::string& path) {
    std::ofstream(path, std::ios::app).close();
    std::filesystem::resize_file(path, uintmax_t{10} << 30);
    return path;
  };
  const auto is_refused = [](std::vector<std::string> words, const std::string& path) {
    const auto begin = steady_clock::now();
    Program program(std::move(words));
    const auto status = program.wait(kPatience);
    EXPECT_THAT(status.value_or(0), Not(0)) << path << "\n" << program.output();
    EXPECT_LT(status.value_or(134), 128) << path << "\n" << program.output();
    EXPECT_LT(steady_clock::now() - begin, seconds(20)) << path;
    EXPECT_THAT(program.output(), HasSubstr(path + " has 10737418240 bytes; no file of this kind has more than "));
  };
  for (const char* name :
       {"config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json", "chat_template.jinja"}) {
    const std::string path = folder / "nano/" + name, kept = path + ".kept";
    const bool was_there = std::filesystem::exists(path);
    if (was_there) std::filesystem::copy(path, kept);
    is_refused(serve_words(folder / "nano", small()), grow(path));
    std::filesystem::remove(path);
    if (was_there) std::filesystem::rename(kept, path);
  }
  const std::string large = grow(folder / "large.json");
  is_refused({"up", large, "--run-folder", folder / "run"}, large);
  is_refused({"check", "--plan", "--model", large}, large);
  is_refused({"eval", "--url", "http://127.0.0.1:9/v1", "--questions", large}, large);
  is_refused({"synth", "--config", large, "--out", folder / "out"}, large);
  is_refused(serve_words(nano_folder(), {"--group-secret-file", large, "--tensor-parallel-size", "2"}), large);
  is_refused(serve_words(nano_folder(), {"--chat-template", large}), large);
  is_refused(serve_words(nano_folder(), {"--config", large}), large);
  std::filesystem::remove(folder / "nano/model.safetensors");
  const std::string index = grow(folder / "nano/model.safetensors.index.json");
  is_refused(serve_words(folder / "nano", small()), index);
}

TEST(Ports, OneInUseIsSaidBeforeAnythingIsLoadedWithWhoHasIt) {
  const auto first = serve(nano_folder(), small());
  const auto ready = first->wait_for_line("ready: http://127.0.0.1:", kPatience);
  ASSERT_TRUE(ready) << first->output();
  const size_t colon = ready->text.find("127.0.0.1:") + 10;
  const std::string port = ready->text.substr(colon, ready->text.find('/', colon) - colon);
  const std::string reason =
      fmt::format("cannot listen on 127.0.0.1:{}: Address already in use, by cachalot (pid {})", port, first->pid());
  Program second(
      {"serve", "--model", nano_folder(), "--host", "127.0.0.1", "--port", port, "--tensor-parallel-size", "2"});
  EXPECT_EQ(second.wait(kPatience), 1) << second.output();
  EXPECT_EQ(second.lines().size(), 1U) << second.output();
  EXPECT_THAT(second.output(), HasSubstr(reason));
  Program router({"router", "--server-urls", "http://127.0.0.1:9", "--host", "127.0.0.1", "--port", port});
  EXPECT_EQ(router.wait(kPatience), 1) << router.output();
  EXPECT_THAT(router.output(), HasSubstr(reason));
}

TEST(Starts, ALayoutThatDoesNotDivideIsSaidOnceBeforeThereAreRanks) {
  const auto server = serve(nano_folder(), {"--tensor-parallel-size", "3"});
  EXPECT_EQ(server->wait(kPatience), 1) << server->output();
  EXPECT_EQ(server->lines().size(), 1U) << server->output();
  EXPECT_THAT(server->output(), HasSubstr("3"));
}

}  // namespace
}  // namespace cachalot::test
