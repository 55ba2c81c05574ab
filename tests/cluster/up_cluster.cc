#include "cluster/up_cluster.h"

#include <fmt/format.h>
#include <signal.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <thread>

#include "processes/served_group.h"

namespace cachalot::test {
namespace {

namespace fs = std::filesystem;
namespace json = boost::json;
using std::chrono::milliseconds;
using std::chrono::seconds;
using Clock = std::chrono::steady_clock;

template <class Condition>
bool wait_until(milliseconds patience, Condition condition) {
  for (const auto deadline = Clock::now() + patience; Clock::now() < deadline;) {
    if (condition()) return true;
    std::this_thread::sleep_for(milliseconds(20));
  }
  return false;
}

bool exists(pid_t pid) {
  if (kill(pid, 0) != 0) return false;
  std::ifstream file(fmt::format("/proc/{}/stat", pid));
  const std::string stat{std::istreambuf_iterator<char>(file), {}};
  const size_t state = stat.rfind(") ");
  return state != std::string::npos && stat[state + 2] != 'Z';
}

}  // namespace

UpCluster::UpCluster(const UpClusterOptions& options) : router_port_(free_port()), file_(scratch_ / "nano.yaml") {
  const std::string key = options.api_key.empty() ? "" : ", api-key: " + options.api_key;
  std::ofstream(file_) << fmt::format(
      "model: {}\n"
      "served-model-name: nano\n"
      "data-parallel-size: 2\n"
      "tensor-parallel-size: 2\n"
      "enable-expert-parallel: {}\n"
      "port: 0\n"
      "data-parallel-rpc-port: 0\n"
      "serve: {{num-gpu-blocks-override: 256, max-model-len: 2048{}}}\n"
      "router: {{port: {}{}}}\n"
      "{}",
      nano_folder(), options.expert_parallel, key, router_port_, key, options.more);
  watcher_ = run("up", options.flags);
}

UpCluster::UpCluster(const Existing& existing) : router_port_(existing.router_port), file_(existing.file) {
  watcher_ = run("up");
}

UpCluster::~UpCluster() {
  std::vector<pid_t> pids = all_pids();
  watcher_->signal(SIGTERM);
  if (!watcher_->wait(seconds(20))) watcher_->signal(SIGKILL);
  still_there(std::move(pids), seconds(10));
}

bool UpCluster::wait_until_ready(milliseconds patience) {
  return watcher_->wait_for_line("ready: OpenAI's API at ", patience).has_value();
}

std::unique_ptr<Program> UpCluster::run(const std::string& command, const std::vector<std::string>& flags) const {
  std::vector<std::string> words{command, file_, "--run-folder", scratch_ / "run"};
  std::ranges::copy(flags, std::back_inserter(words));
  return std::make_unique<Program>(words);
}

json::value UpCluster::status() const {
  const auto program = run("status", {"--json"});
  if (program->wait(seconds(20)) != 0 || !program->wait_for_silence(seconds(5))) return nullptr;
  return json::parse(program->output());
}

json::value UpCluster::state() const {
  std::ifstream file(scratch_ / ("run/" + fs::path(file_).stem().string() + ".json"));
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  boost::system::error_code broken;
  json::value state = json::parse(text, broken);
  return broken ? json::value() : state;
}

int UpCluster::num_restarts(size_t replica) const {
  const json::value state = this->state();
  return state.is_null() ? -1 : state.at("replicas").at(replica).at("restarts").to_number<int>();
}

std::optional<int> UpCluster::wait_for_restart(int more_than, milliseconds patience, size_t replica) const {
  std::optional<int> num_restarts;
  wait_until(patience, [&] {
    const json::value state = this->state();
    if (state.is_null()) return false;
    const auto is_ready = [](const json::value& member) { return member.at("ready").as_bool(); };
    const json::array& replicas = state.at("replicas").as_array();
    const int restarts = replicas.at(replica).at("restarts").to_number<int>();
    if (restarts <= more_than || !std::ranges::all_of(replicas, is_ready) ||
        !std::ranges::all_of(state.at("router").as_array(), is_ready))
      return false;
    num_restarts = restarts;
    return true;
  });
  return num_restarts;
}

bool UpCluster::wait_for_router_restart(milliseconds patience) const {
  return wait_until(patience, [&] {
    const json::value state = this->state();
    if (state.is_null()) return false;
    const json::value& router = state.at("router").at(0);
    return router.at("restarts").as_int64() > 0 && router.at("ready").as_bool();
  });
}

pid_t UpCluster::router_pid() const {
  const json::value state = this->state();
  if (state.is_null()) return 0;
  const std::vector<pid_t> below = descendants_of(state.at("router").at(0).at("pid").to_number<pid_t>());
  return below.empty() ? 0 : below.front();
}

std::vector<pid_t> UpCluster::rank_pids() const {
  std::vector<pid_t> pids;
  const json::value status = this->status();
  if (status.is_null()) return pids;
  for (const json::value& load : status.at("loads").as_array()) {
    for (const json::value& rank : load.at("ranks").as_array()) pids.push_back(rank.at("pid").to_number<pid_t>());
  }
  return pids;
}

std::vector<pid_t> UpCluster::all_pids() const {
  std::vector<pid_t> pids = descendants_of(watcher_->pid());
  pids.push_back(watcher_->pid());
  return pids;
}

std::string UpCluster::logs() const {
  std::string all = watcher_->output();
  std::error_code none;
  for (const auto& entry : fs::directory_iterator(fs::path(file_).parent_path() / "logs", none)) {
    std::ifstream file(entry.path());
    all += "--- " + entry.path().filename().string() + "\n" + std::string{std::istreambuf_iterator<char>(file), {}};
  }
  return all;
}

std::vector<pid_t> still_there(std::vector<pid_t> pids, milliseconds patience) {
  wait_until(patience, [&] { return std::ranges::none_of(pids, exists); });
  std::erase_if(pids, [](pid_t pid) { return !exists(pid); });
  return pids;
}

}  // namespace cachalot::test
