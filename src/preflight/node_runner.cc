#include "preflight/node_runner.h"

#include <stdlib.h>

#include <csignal>
#include <filesystem>
#include <optional>
#include <thread>

#include "base/file.h"
#include "cluster/child.h"
#include "cluster/lease.h"

namespace cachalot {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kLook{10}, kRenewal{2'000};
constexpr size_t kMostShown = 600;  // bytes of what a helper printed, in an error

class TemporaryFolder {
 public:
  static Result<TemporaryFolder> create() {
    std::string path = (std::filesystem::temp_directory_path() / "cachalot-check-XXXXXX").string();
    if (!mkdtemp(path.data())) return make_error(ErrorCode::kIo, "{}: no folder can be made", path);
    return TemporaryFolder(std::move(path));
  }
  TemporaryFolder(TemporaryFolder&& other) noexcept : path_(std::exchange(other.path_, {})) {}
  TemporaryFolder& operator=(TemporaryFolder&&) = delete;
  ~TemporaryFolder() {
    std::error_code ignored;
    if (!path_.empty()) std::filesystem::remove_all(path_, ignored);
  }
  const std::string& path() const { return path_; }

 private:
  explicit TemporaryFolder(std::string path) : path_(std::move(path)) {}
  std::string path_;
};

double unix_now() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

// What a program has printed, for an error: its last lines.
std::string last_of(std::string text) {
  while (text.ends_with('\n')) text.pop_back();
  if (text.size() <= kMostShown) return text;
  const size_t line = text.find('\n', text.size() - kMostShown);
  return text.substr(line == std::string::npos ? text.size() - kMostShown : line + 1);
}

NodeAnswer read_answer(const std::string& output, const std::string& how) {
  const size_t mark = output.rfind(kAnswerMark);
  if (mark == std::string::npos) {
    const std::string said = last_of(output);
    return {.text = {}, .error = said.empty() ? how : how + ": " + said};
  }
  const size_t begin = mark + kAnswerMark.size(), end = output.find('\n', begin);
  return {.text = output.substr(begin, end == std::string::npos ? end : end - begin), .error = {}};
}

}  // namespace

Result<std::vector<NodeAnswer>> run_on_nodes(const ClusterFile& cluster, const std::string& program,
                                             const std::vector<Words>& arguments, std::chrono::seconds patience) {
  signal(SIGPIPE, SIG_IGN);  // a child that has ended reads no more
  ASSIGN_OR_RETURN(const TemporaryFolder folder, TemporaryFolder::create());
  const auto log_of = [&](size_t idx) { return folder.path() + "/" + std::to_string(idx) + ".log"; };
  std::vector<std::optional<Child>> children(arguments.size());
  for (size_t idx = 0; idx < arguments.size(); idx++) {
    const Words words = launch_words(cluster, cluster.nodes[idx], program, arguments[idx]);
    ASSIGN_OR_RETURN(Child child, Child::start({.words = words, .folder = {}, .log = log_of(idx), .input = true}));
    children[idx].emplace(std::move(child));
  }
  std::vector<NodeAnswer> answers(arguments.size());
  const Clock::time_point start = Clock::now();
  Clock::time_point renewed = start, looked = start;
  for (size_t num_left = children.size(); num_left > 0;) {
    const Clock::time_point now = Clock::now();
    const bool over = now - start > patience;
    const bool renew = now - renewed > kRenewal;
    if (renew) renewed = now;
    for (size_t idx = 0; idx < children.size(); idx++) {
      if (!children[idx]) continue;
      if (renew) children[idx]->write(kRenewLease);
      const std::optional<int> status = children[idx]->status();
      if (!status && !over) continue;
      const std::string how =
          status ? Child::describe(*status) : "did not answer within " + std::to_string(patience.count()) + " s";
      answers[idx] = read_answer(read_file(log_of(idx)).value_or(""), how);
      answers[idx].unix_seconds = unix_now();
      answers[idx].seconds_to_see = std::chrono::duration<double>(now - looked + kLook).count();
      children[idx].reset();
      num_left--;
    }
    looked = now;
    std::this_thread::sleep_for(kLook);
  }
  return answers;
}

}  // namespace cachalot
