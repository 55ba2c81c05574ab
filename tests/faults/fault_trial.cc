#include "faults/fault_trial.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <mutex>
#include <thread>

#include "processes/served_group.h"

namespace cachalot::test {
namespace {

using std::chrono::milliseconds;
using SystemClock = std::chrono::system_clock;
using End = StreamedAnswer::End;

constexpr int kMaxTokens = 400;
constexpr milliseconds kPatience{8'000};  // for everything to be over

double ms_between(SystemClock::time_point begin, SystemClock::time_point end) {
  return std::chrono::duration<double, std::milli>(end - begin).count();
}

// Asks one answer after another until its server is gone, and counts how those after the fault ended.
class Client {
 public:
  Client(const ApiClient& api, uint16_t port, bool serves_no_more)
      : thread_([this, &api, port, serves_no_more] { run(api, port, serves_no_more); }) {}
  void join() { thread_.join(); }
  bool has_tokens() const { return num_tokens_.load() > 0; }
  const ClientCounts& counts() const { return counts_; }  // after join()

 private:
  void run(const ApiClient& api, uint16_t port, bool serves_no_more) {
    for (int round = 0;; round++) {
      const auto body = completion_body(boost::json::value("What is 17 + 25?"), kMaxTokens + round % 7);
      const StreamedAnswer answer = api.stream(port, body, [this](int) {
        num_tokens_.fetch_add(1);
        return true;
      });
      if (answer.end == End::kUnreachable) return;
      if (answer.end == End::kComplete) {
        counts_.falsely_complete += answer.num_tokens < kMaxTokens + round % 7;
        continue;
      }
      if (answer.end == End::kErrorEvent) counts_.error_event++;
      if (answer.end == End::kCut) (serves_no_more ? counts_.lost_with_server : counts_.cut)++;
      if (answer.end == End::kSilent) (serves_no_more ? counts_.lost_with_server : counts_.silent)++;
      if (answer.end == End::kCut || answer.end == End::kSilent) return;
      if (answer.end == End::kRefused) {
        counts_.refused++;
        counts_.refused_wrongly += answer.status != 503 || !answer.has_retry_after;
        std::this_thread::sleep_for(milliseconds(20));
      }
    }
  }

  std::atomic<int> num_tokens_{0};
  ClientCounts counts_;
  std::thread thread_;
};

// "... E rank 1: rank 3 (replica 1, tp 1, host b, pid 77) is lost: its process died; it was in step 812"
std::vector<Program::Line> reports_of(const Program& server, int survivor, int victim, int tp_size) {
  const std::string begin = fmt::format(" E rank {}: rank {} (replica {}, tp {}, host ", survivor, victim,
                                        victim / tp_size, victim % tp_size);
  std::vector<Program::Line> reports;
  for (Program::Line& line : server.lines()) {
    const bool whole = line.text.find(" is lost: ") != std::string::npos &&
                       line.text.find("; it was ") != std::string::npos && line.text.find("step") != std::string::npos;
    if (line.text.find(begin) != std::string::npos && whole) reports.push_back(std::move(line));
  }
  return reports;
}

class Trial {
 public:
  explicit Trial(const TrialOptions& options);
  TrialResult run();

 private:
  bool is_victims(int dp_rank) const { return options_.victim / tp_size_ == dp_rank; }
  bool leads() const { return options_.victim % tp_size_ == 0; }
  void load(std::vector<std::unique_ptr<Client>>& clients);
  void do_fault();
  // A replica whose leader is the victim has no process that could serve or, unless it is only cut off, end by itself.
  bool serves_no_more(int dp_rank) const { return is_victims(dp_rank) && leads(); }
  bool ends_by_itself(int dp_rank) const { return !serves_no_more(dp_rank) || options_.fault == Fault::kLinkDown; }
  void watch_ends();
  std::vector<int> lost_ranks() const;
  void collect_reports();

  const TrialOptions options_;
  const int tp_size_;
  ServedGroup group_;
  std::vector<std::unique_ptr<ApiClient>> apis_;  // of each replica
  SystemClock::time_point fault_at_;
  TrialResult result_;
};

ServedGroupOptions group_of(const TrialOptions& options) {
  if (options.network == nullptr) return {};
  return {.layout = {.dp_size = 4, .tp_size = 1}, .nodes = options.network->nodes()};
}

Trial::Trial(const TrialOptions& options)
    : options_(options), tp_size_(group_of(options).layout.tp_size), group_(group_of(options)) {
  for (int dp_rank = 0; dp_rank < group_.num_replicas(); dp_rank++) {
    const std::string host =
        options.network ? options.network->nodes()[static_cast<size_t>(dp_rank)].address : "127.0.0.1";
    apis_.push_back(std::make_unique<ApiClient>(kPatience, host));
  }
}

TrialResult Trial::run() {
  if (!group_.ready()) {
    result_.problems.emplace_back("the group did not start");
    return std::move(result_);
  }
  std::vector<std::unique_ptr<Client>> clients;
  load(clients);
  std::this_thread::sleep_for(options_.moment);
  do_fault();
  watch_ends();
  for (const auto& client : clients) {
    client->join();
    result_.clients += client->counts();
  }
  collect_reports();
  result_.output = group_.output();
  return std::move(result_);
}

void Trial::load(std::vector<std::unique_ptr<Client>>& clients) {
  for (int idx = 0; idx < options_.clients_per_replica * group_.num_replicas(); idx++) {
    const int dp_rank = idx % group_.num_replicas();
    clients.push_back(
        std::make_unique<Client>(*apis_[static_cast<size_t>(dp_rank)], group_.port(dp_rank), serves_no_more(dp_rank)));
  }
  for (int attempt = 0; attempt < 1000; attempt++) {
    if (std::ranges::all_of(clients, [](const auto& client) { return client->has_tokens(); })) return;
    std::this_thread::sleep_for(milliseconds(10));
  }
  result_.problems.emplace_back("not every client had a token after 10 s");
}

void Trial::do_fault() {
  fault_at_ = SystemClock::now();
  if (options_.fault == Fault::kLinkDown) return options_.network->cut(options_.victim);
  const pid_t pid = group_.pid_of(options_.victim);
  fault_at_ = SystemClock::now();
  kill(pid, options_.fault == Fault::kKill ? SIGKILL : SIGSTOP);
}

void Trial::watch_ends() {
  for (int dp_rank = 0; dp_rank < group_.num_replicas(); dp_rank++) {
    if (!ends_by_itself(dp_rank)) continue;
    if (group_.replica(dp_rank).wait(kPatience)) {
      result_.end_ms.push_back(ms_between(fault_at_, SystemClock::now()));
    } else {
      result_.problems.push_back(fmt::format("replica {} still runs", dp_rank));
    }
  }
  for (int dp_rank = 0; dp_rank < group_.num_replicas(); dp_rank++) {
    Program& server = group_.replica(dp_rank);
    if (!ends_by_itself(dp_rank)) {
      // Whoever finds a stopped server ends it, and with it what it started.
      std::this_thread::sleep_for(milliseconds(options_.fault == Fault::kStop ? 500 : 0));
      server.signal(SIGKILL);
      server.wait(kPatience);
    }
    result_.orphans += !server.wait_for_silence(milliseconds(1'000));
  }
}

// A killed leader takes its children with it, at once: a survivor may see any of them first, and end before it sees the
// others.
std::vector<int> Trial::lost_ranks() const {
  if (!leads() || options_.fault == Fault::kStop) return {options_.victim};
  std::vector<int> lost;
  for (int rank = options_.victim; rank < options_.victim + tp_size_; rank++) lost.push_back(rank);
  return lost;
}

void Trial::collect_reports() {
  const std::vector<int> lost = lost_ranks();
  for (int survivor = 0; survivor < group_.num_ranks(); survivor++) {
    if (std::ranges::find(lost, survivor) != lost.end()) continue;
    std::vector<Program::Line> first_of_each;
    for (const int rank : lost) {
      const auto reports = reports_of(group_.replica(survivor / tp_size_), survivor, rank, tp_size_);
      if (!reports.empty()) first_of_each.push_back(reports[0]);
      if (reports.size() > 1)
        result_.problems.push_back(fmt::format("rank {} reported rank {} {} times", survivor, rank, reports.size()));
    }
    if (first_of_each.empty()) {
      result_.problems.push_back(fmt::format("rank {} did not report the loss", survivor));
      continue;
    }
    const auto first = std::ranges::min_element(first_of_each, {}, &Program::Line::at);
    result_.detection_ms.push_back(ms_between(fault_at_, first->at));
  }
}

}  // namespace

ClientCounts& ClientCounts::operator+=(const ClientCounts& other) {
  error_event += other.error_event;
  refused += other.refused;
  lost_with_server += other.lost_with_server;
  falsely_complete += other.falsely_complete;
  refused_wrongly += other.refused_wrongly;
  cut += other.cut;
  silent += other.silent;
  return *this;
}

TrialResult run_trial(const TrialOptions& options) {
  return Trial(options).run();
}

}  // namespace cachalot::test
