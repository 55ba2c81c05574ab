// agents_node agent SERVER NUM_SERVERS RANKS_PER_SERVER WITNESS ADDRESSES FOLDER STATE_DIR
// agents_node rank RANK PROCESS AGENT_FD FOLDER
//
// An agent of a group, and a rank of one, which it starts. A rank loads for a moment, and then does nothing but obey:
// while it is in an epoch and has a lease, it says so again and again in the file FOLDER/PROCESS:
//
//   in EPOCH RANK NUM_MEMBERS NANOSECONDS PROCESS...
//   at EPOCH NANOSECONDS
#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <charconv>
#include <chrono>
#include <cstring>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "agents/rank_link.h"
#include "agents/running_agent.h"
#include "base/log.h"
#include "base/stop_signals.h"
#include "base/text.h"

namespace cachalot::agents {
namespace {

constexpr std::chrono::milliseconds kFailureTimeout{1'000}, kLoadTime{50}, kRound{4};

int number(const char* text) {
  return leading_number<int>(text);
}

int run_rank(char** words) {
  const auto process = leading_number<uint64_t>(words[1]);
  const int rank = number(words[0]);
  const FileDescriptor file(
      open((std::string(words[3]) + "/" + words[1]).c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644));
  const auto say = [&](const std::string& line) { CHECK(write(file.get(), line.data(), line.size()) > 0); };
  RankLink link(FileDescriptor(number(words[2])), kFailureTimeout);
  RankReport report{.process = process, .rank = rank, .card = "card of " + std::string(words[1])};
  link.report(report);
  std::this_thread::sleep_for(kLoadTime);
  report.phase = RankPhase::kReady;
  link.report(report);

  std::mutex mutex;
  Order order;
  link.on_order([&](const Order& told) {
    const std::lock_guard lock(mutex);
    order = told;
  });
  while (received_stop_signal() == 0) {
    std::this_thread::sleep_for(kRound);
    const std::lock_guard lock(mutex);
    const auto now = std::chrono::steady_clock::now();
    const bool is_member = order.epoch.member(process) != nullptr;
    if (!is_member || now >= order.serve_until) continue;
    if (report.epoch != order.epoch.number) {
      std::string line = fmt::format("in {} {} {} {}", order.epoch.number, rank, order.epoch.members.size(),
                                     now.time_since_epoch().count());
      for (const EpochMember& member : order.epoch.members) line += fmt::format(" {}", member.process);
      say(line + "\n");
      report.phase = RankPhase::kMember;
      report.epoch = order.epoch.number;
      report.card = fmt::format("card {} of {}", report.epoch, process);
    }
    say(fmt::format("at {} {}\n", report.epoch, now.time_since_epoch().count()));
    report.committed++;
    link.report(report);
  }
  return 0;
}

int run_agent(char** words) {
  const std::string folder = words[5], state_dir = words[6];
  RunningAgentOptions options{.agent = {.server = number(words[0]),
                                        .num_servers = number(words[1]),
                                        .ranks_per_server = number(words[2]),
                                        .has_witness = number(words[3]) != 0,
                                        .failure_timeout = kFailureTimeout},
                              .network = {.server = number(words[0]),
                                          .addresses = {},
                                          .has_witness = number(words[3]) != 0,
                                          .secret = "a secret",
                                          .program_version = "1",
                                          .settings = {},
                                          .failure_timeout = kFailureTimeout},
                              .state_dir = state_dir,
                              .command = {}};
  for (const std::string& address : words_of(words[4]))
    options.network.addresses.push_back(parse_agent_address(address).value());
  options.command = [&](int rank, uint64_t process, int fd) {
    return ProcessOptions{
        .words = {"agents_node", "rank", std::to_string(rank), std::to_string(process), std::to_string(fd), folder},
        .program = "/proc/self/exe"};
  };
  StopSignals signals(std::chrono::seconds(10));
  const auto agent = RunningAgent::start(std::move(options));
  if (!agent) {
    log::error("{}", agent.error().message);
    return 1;
  }
  signals.wait();
  (*agent)->end_ranks();
  (*agent)->ranks_end_within(std::chrono::seconds(5));
  return 0;
}

}  // namespace
}  // namespace cachalot::agents

int main(int num_words, char** words) {
  cachalot::take_stop_signals();
  const std::string_view what = num_words > 1 ? words[1] : "";
  if (what == "rank" && num_words == 6) {
    cachalot::log::init("info", fmt::format("rank {}", words[2]));
    const cachalot::StopSignals signals(std::chrono::seconds(5));
    return cachalot::agents::run_rank(words + 2);
  }
  if (what != "agent" || num_words != 9) return 2;
  cachalot::log::init("info", fmt::format("agent {}", words[2]));
  return cachalot::agents::run_agent(words + 2);
}
