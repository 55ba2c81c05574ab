// up_faults --kind kill|stop|link --trials N: faults on a cluster that is up and under load, one after another at
// random ranks and moments, and a row of docs/operations.md's table of what came of them. Exit status 1 if anything
// went otherwise than promised there.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <csignal>
#include <fstream>
#include <iterator>
#include <mutex>
#include <random>
#include <thread>

#include "base/math.h"
#include "cluster/up_cluster.h"
#include "processes/api_client.h"

namespace cachalot::test {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using Clock = std::chrono::steady_clock;
using Time = Clock::time_point;
using End = StreamedAnswer::End;

constexpr int kMaxTokens = 120;
constexpr milliseconds kPatience{120'000};  // for a cluster that serves again

double ms_between(Time begin, Time end) {
  return std::chrono::duration<double, std::milli>(end - begin).count();
}

struct AskedAnswer {
  Time begin, end;
  StreamedAnswer answer;
};

// Asks the router one answer after another until it is told to stop.
class Client {
 public:
  Client(const ApiClient& api, uint16_t port, int max_tokens, milliseconds pause)
      : thread_([this, &api, port, max_tokens, pause](const std::stop_token& stop) {
          while (!stop.stop_requested()) {
            const Time begin = Clock::now();
            auto body = completion_body(boost::json::value("What is 17 + 25?"), max_tokens);
            body["model"] = "nano";
            StreamedAnswer answer = api.stream(port, std::move(body));
            if (answer.end == End::kComplete && answer.num_tokens < max_tokens) answer.error = "too short";
            const bool refused = answer.end == End::kRefused || answer.end == End::kUnreachable;
            {
              const std::lock_guard lock(mutex_);
              answers_.push_back({begin, Clock::now(), std::move(answer)});
            }
            std::this_thread::sleep_for(refused ? std::max(pause, milliseconds(20)) : pause);
          }
        }) {}

  // Those that ended since then.
  std::vector<AskedAnswer> since(Time begin) const {
    const std::lock_guard lock(mutex_);
    std::vector<AskedAnswer> answers;
    std::ranges::copy_if(answers_, std::back_inserter(answers), [&](const auto& asked) { return asked.end >= begin; });
    return answers;
  }

 private:
  mutable std::mutex mutex_;  // guards the answers
  std::vector<AskedAnswer> answers_;
  std::jthread thread_;
};

struct Row {
  int num_trials = 0;
  std::vector<double> known_ms, refused_ms, serving_ms, longest_ms;
  int complete = 0, error_event = 0, refused = 0, cut = 0, wrong = 0;
  std::vector<std::string> problems;
};

std::string spread(std::vector<double> values) {
  if (values.empty()) return "-";
  const auto [least, most] = std::ranges::minmax(values);
  return fmt::format("{:.0f} / {:.0f} / {:.0f}", least, median(values), most);
}

// The first answer that began after the fault, ended whole, and came after a loss was known.
std::optional<Time> serves_again(const std::vector<AskedAnswer>& answers, Time known) {
  std::optional<Time> first;
  for (const AskedAnswer& asked : answers) {
    if (asked.answer.end == End::kComplete && asked.begin >= known && (!first || asked.end < *first)) first = asked.end;
  }
  return first;
}

class Faults {
 public:
  Faults(const UpCluster& cluster, unsigned seed) : cluster_(cluster), random_(seed) {
    for (int idx = 0; idx < 6; idx++)
      streams_.push_back(std::make_unique<Client>(api_, cluster.router_port(), kMaxTokens, milliseconds(0)));
    // Asks for one token every now and then: how long a client waits for a word at all.
    short_ = std::make_unique<Client>(api_, cluster.router_port(), 1, milliseconds(50));
  }

  // The fault is done, and what it needs to be over is undone after `lasting`.
  void run(const std::function<void()>& fault, const std::function<void()>& undo, milliseconds lasting, Row& row) {
    std::this_thread::sleep_for(milliseconds(500 + random_() % 1'500));
    const Time begin = Clock::now();
    fault();
    std::this_thread::sleep_for(lasting);
    undo();
    row.num_trials++;
    const std::optional<int> restarts = cluster_.wait_for_restart(num_restarts_, kPatience);
    num_restarts_ = restarts.value_or(num_restarts_);
    if (!restarts) {
      row.problems.push_back("the cluster does not serve again\n" + cluster_.logs());
      return;
    }
    collect(begin, row);
  }
  unsigned random() { return random_(); }

 private:
  void collect(Time begin, Row& row) {
    const Time known = begin + std::chrono::duration_cast<Clock::duration>(
                                   std::chrono::duration<double, std::milli>(known_after(begin, row)));
    std::optional<Time> again;
    for (const Time deadline = Clock::now() + seconds(30); !again && Clock::now() < deadline;) {
      std::this_thread::sleep_for(milliseconds(10));
      again = serves_again(short_->since(begin), known);
    }
    if (!again) return row.problems.emplace_back("no answer came after the cluster said it was ready again"), void();
    row.serving_ms.push_back(ms_between(begin, *again));
    count(begin, *again, row);
  }

  // By the log's own time, which is that of the wall.
  double known_after(Time begin, Row& row) {
    const auto fault_at = std::chrono::system_clock::now() - (Clock::now() - begin);
    for (const Program::Line& line : cluster_.watcher().lines()) {
      if (line.at < fault_at || line.text.find("is lost and will be started anew") == std::string::npos) continue;
      const double ms = std::chrono::duration<double, std::milli>(line.at - fault_at).count();
      row.known_ms.push_back(ms);
      return ms;
    }
    row.problems.emplace_back("`up` did not say that it knows");
    return 0;
  }

  void count(Time begin, Time again, Row& row) {
    double longest = 0;
    std::optional<double> refused;
    for (const AskedAnswer& asked : short_->since(begin)) {
      if (asked.begin > again) continue;
      if (asked.begin >= begin) longest = std::max(longest, ms_between(asked.begin, asked.end));
      if (asked.answer.end == End::kRefused && !refused) refused = ms_between(begin, asked.end);
    }
    row.longest_ms.push_back(longest);
    if (refused) row.refused_ms.push_back(*refused);
    for (const auto& stream : streams_) {
      for (const AskedAnswer& asked : stream->since(begin)) {
        if (asked.begin < again) count(asked.answer, row);
      }
    }
  }

  static void count(const StreamedAnswer& answer, Row& row) {
    row.complete += answer.end == End::kComplete && answer.error.empty();
    row.error_event += answer.end == End::kErrorEvent;
    const bool rightly = answer.status == 503 && answer.has_retry_after;
    row.refused += answer.end == End::kRefused && rightly;
    row.cut += answer.end == End::kCut || answer.end == End::kUnreachable || answer.end == End::kSilent;
    const bool wrong =
        (answer.end == End::kComplete && !answer.error.empty()) || (answer.end == End::kRefused && !rightly);
    row.wrong += wrong;
    if (wrong)
      row.problems.push_back(fmt::format("status {}, {} tokens: {}", answer.status, answer.num_tokens, answer.error));
  }

  const UpCluster& cluster_;
  std::mt19937 random_;
  ApiClient api_{seconds(30)};
  std::vector<std::unique_ptr<Client>> streams_;
  std::unique_ptr<Client> short_;
  int num_restarts_ = 0;
};

void print(const std::string& kind, const Row& row) {
  fmt::print(
      "| fault | n | `up` knows after (ms: min / median / max) | first 503 after (ms) | longest wait for an answer or "
      "503 "
      "(ms) | serves again after (ms) | answers meanwhile: complete | error event | 503 | cut | wrong |\n"
      "|---|---|---|---|---|---|---|---|---|---|---|\n"
      "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |\n",
      kind, row.num_trials, spread(row.known_ms), spread(row.refused_ms), spread(row.longest_ms),
      spread(row.serving_ms), row.complete, row.error_event, row.refused, row.cut, row.wrong);
}

struct Options {
  std::string kind = "kill", file, run_folder;
  int trials = 5;
  unsigned seed = 1;
  uint16_t port = 0;
  std::string cut, mend;  // shell commands, with {} for the node's number
  int num_nodes = 0, cut_seconds = 5;
};

void shell(const std::string& command, unsigned node) {
  const std::string line = fmt::format(fmt::runtime(command), node);
  if (std::system(line.c_str()) != 0) fmt::print(stderr, "failed: {}\n", line);
}

int run(const Options& options) {
  UpCluster cluster = options.file.empty() ? UpCluster({.more = "restart: {longest-wait: 1, most: 1000000}\n"})
                                           : UpCluster::of_file(options.file, options.port);
  if (!cluster.wait_until_ready()) {
    fmt::print(stderr, "the cluster is not up\n{}\n", cluster.logs());
    return 1;
  }
  Row row;
  Faults faults(cluster, options.seed);
  for (int trial = 0; trial < options.trials && row.problems.empty(); trial++) {
    const unsigned victim = faults.random();
    if (options.kind == "link") {
      const unsigned node = victim % static_cast<unsigned>(options.num_nodes) + 1;
      faults.run([&] { shell(options.cut, node); }, [&] { shell(options.mend, node); }, seconds(options.cut_seconds),
                 row);
      continue;
    }
    const std::vector<pid_t> ranks = cluster.rank_pids();
    if (ranks.empty()) {
      row.problems.emplace_back("`status` shows no ranks\n" + cluster.logs());
      break;
    }
    faults.run([&] { kill(ranks[victim % ranks.size()], options.kind == "kill" ? SIGKILL : SIGSTOP); }, [] {},
               milliseconds(0), row);
  }
  const std::vector<pid_t> all = cluster.all_pids();
  if (cluster.run("down")->wait(seconds(60)) != 0 || !still_there(all, seconds(0)).empty())
    row.problems.emplace_back("`down` left a process");
  print(options.kind == "kill" ? "kill -9" : options.kind == "stop" ? "SIGSTOP" : "link down", row);
  for (const std::string& problem : row.problems) fmt::print(stderr, "{}\n", problem);
  return row.problems.empty() ? 0 : 1;
}

}  // namespace
}  // namespace cachalot::test

int main(int argc, char** argv) {
  CLI::App app{"Faults on a cluster that is up, at random ranks and moments under load"};
  cachalot::test::Options options;
  app.add_option("--kind", options.kind, "kill, stop or link")->check(CLI::IsMember({"kill", "stop", "link"}));
  app.add_option("--trials", options.trials, "How many")->capture_default_str();
  app.add_option("--seed", options.seed, "Of the random ranks and moments")->capture_default_str();
  app.add_option("--file", options.file, "A cluster file of one's own");
  app.add_option("--port", options.port, "Its router's port");
  app.add_option("--cut", options.cut, "For link: a command that cuts node {} off");
  app.add_option("--mend", options.mend, "and one that ends that");
  app.add_option("--nodes", options.num_nodes, "and how many nodes there are");
  app.add_option("--cut-seconds", options.cut_seconds, "and for how long")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  return cachalot::test::run(options);
}
