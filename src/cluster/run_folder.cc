#include "cluster/run_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <thread>

#include "base/file.h"

namespace cachalot {

namespace fs = std::filesystem;
namespace json = boost::json;

Result<RunFolder> RunFolder::open(const std::string& path, std::string flag) {
  std::error_code failed;
  if (fs::path(path).has_parent_path()) fs::create_directories(fs::path(path).parent_path(), failed);
  struct stat info{};
  if (failed || (mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) || stat(path.c_str(), &info) != 0)
    return make_error(ErrorCode::kIo, "the run folder {} cannot be made: {}; --run-folder names another one", path,
                      failed ? failed.message() : std::strerror(errno));
  if (!S_ISDIR(info.st_mode) || info.st_uid != geteuid())
    return make_error(ErrorCode::kIo, "{} is no folder of this user's; --run-folder names another one", path);
  return RunFolder(path, std::move(flag));
}

std::optional<pid_t> RunFolder::owner(const std::string& name) const {
  const Result<FileDescriptor> lock = open_file(lock_path(name));
  if (!lock || flock(lock->get(), LOCK_SH | LOCK_NB) == 0 || errno != EWOULDBLOCK) return std::nullopt;
  // Whoever has just taken it is about to write its number.
  for (int attempt = 0; attempt < 100; attempt++) {
    std::ifstream file(lock_path(name));
    pid_t pid = 0;
    if (file >> pid) return pid;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return std::nullopt;
}

std::vector<std::string> RunFolder::names() const {
  std::vector<std::string> names;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(path_, ignored)) {
    const fs::path& path = entry.path();
    if (path.extension() == ".lock" && owner(path.stem())) names.push_back(path.stem());
  }
  std::ranges::sort(names);
  return names;
}

Result<RunLock> RunLock::take(const RunFolder& folder, const std::string& name) {
  RunLock lock;
  lock.lock_path_ = folder.lock_path(name);
  lock.state_path_ = folder.state_path(name);
  for (;;) {
    FileDescriptor file(::open(lock.lock_path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    if (!file)
      return make_error(ErrorCode::kIo, "{} cannot be written: {}; --run-folder names another folder", lock.lock_path_,
                        std::strerror(errno));
    if (flock(file.get(), LOCK_EX | LOCK_NB) != 0) {
      const std::optional<pid_t> owner = folder.owner(name);
      return make_error(
          ErrorCode::kUnavailable,
          "cluster {0} is already up (pid {1}): `cachalot status {0}{2}` shows it, `cachalot down {0}{2}` stops it; "
          "another one needs another `name` in its file",
          name, owner.value_or(0), folder.flag_);
    }
    // Whoever held it before may have taken the file away in between.
    struct stat held{}, named{};
    if (fstat(file.get(), &held) != 0 || stat(lock.lock_path_.c_str(), &named) != 0 || held.st_ino != named.st_ino)
      continue;
    const std::string pid = std::to_string(getpid()) + "\n";
    if (ftruncate(file.get(), 0) != 0 || write(file.get(), pid.data(), pid.size()) != std::ssize(pid))
      return make_error(ErrorCode::kIo, "{} cannot be written: {}", lock.lock_path_, std::strerror(errno));
    lock.lock_ = std::move(file);
    return lock;
  }
}

RunLock::~RunLock() {
  if (!lock_) return;
  unlink(state_path_.c_str());
  unlink(lock_path_.c_str());
}

namespace {

json::object describe(const MemberState& member) {
  return {{"label", member.label},
          {"node", member.node},
          {"url", member.url},
          {"log", member.log},
          {"state", member.state},
          {"up", member.up},
          {"ready", member.ready},
          {"pid", member.pid},
          {"restarts", member.restarts},
          {"loss", member.loss},
          {"percentages", json::value_from(member.percentages)}};
}

json::array describe(const std::vector<MemberState>& members) {
  json::array described;
  for (const MemberState& member : members) described.push_back(describe(member));
  return described;
}

std::string text_of(const json::object& object, const char* key) {
  return json::value_to<std::string>(object.at(key));
}

std::vector<MemberState> read_members(const json::value& list) {
  std::vector<MemberState> members;
  for (const json::value& value : list.as_array()) {
    const json::object& object = value.as_object();
    members.push_back({.label = text_of(object, "label"),
                       .node = text_of(object, "node"),
                       .url = text_of(object, "url"),
                       .log = text_of(object, "log"),
                       .state = text_of(object, "state"),
                       .up = object.at("up").as_bool(),
                       .ready = object.at("ready").as_bool(),
                       .pid = object.at("pid").to_number<pid_t>(),
                       .restarts = object.at("restarts").to_number<int>(),
                       .loss = text_of(object, "loss"),
                       .percentages = json::value_to<std::vector<int>>(object.at("percentages"))});
  }
  return members;
}

}  // namespace

bool ClusterState::ready() const {
  return std::ranges::all_of(replicas, &MemberState::ready) && std::ranges::all_of(router, &MemberState::ready);
}

std::string to_json(const ClusterState& state) {
  return json::serialize(json::object{{"name", state.name},
                                      {"file", state.file},
                                      {"model", state.model},
                                      {"started", state.started},
                                      {"data_parallel_size", state.data_parallel_size},
                                      {"tensor_parallel_size", state.tensor_parallel_size},
                                      {"enable_expert_parallel", state.enable_expert_parallel},
                                      {"drain_seconds", state.drain_seconds},
                                      {"replicas", describe(state.replicas)},
                                      {"router", describe(state.router)}}) +
         "\n";
}

Result<ClusterState> parse_cluster_state(const std::string& text, const std::string& path) {
  try {
    const json::value parsed = json::parse(text);
    const json::object& object = parsed.as_object();
    return ClusterState{.name = text_of(object, "name"),
                        .file = text_of(object, "file"),
                        .model = text_of(object, "model"),
                        .started = object.at("started").to_number<int64_t>(),
                        .data_parallel_size = object.at("data_parallel_size").to_number<int>(),
                        .tensor_parallel_size = object.at("tensor_parallel_size").to_number<int>(),
                        .enable_expert_parallel = object.at("enable_expert_parallel").as_bool(),
                        .drain_seconds = object.at("drain_seconds").to_number<int>(),
                        .replicas = read_members(object.at("replicas")),
                        .router = read_members(object.at("router"))};
  } catch (const std::exception& exception) {
    return make_error(ErrorCode::kCorrupt, "{} is not the state of a cluster: {}", path, exception.what());
  }
}

}  // namespace cachalot
