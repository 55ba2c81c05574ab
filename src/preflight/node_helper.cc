#include "preflight/node_helper.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <memory>
#include <optional>
#include <thread>

#include "base/file.h"
#include "base/process.h"
#include "cluster/lease.h"
#include "comm/world.h"
#include "config/json.h"
#include "config/version.h"
#include "preflight/link_matrix.h"
#include "preflight/node_report.h"

namespace cachalot {

namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kLook{10}, kRenewal{2'000};
constexpr size_t kMostShown = 600;  // bytes of what a helper printed, in an error

// What a child prints goes to memory that has no name and goes with this process, under a path that only it knows.
class Output {
 public:
  static Result<Output> create() {
    FileDescriptor file(memfd_create("cachalot-check", MFD_CLOEXEC));
    if (!file) return make_error(ErrorCode::kIo, "memfd_create: {}", std::strerror(errno));
    return Output(std::move(file));
  }
  std::string path() const { return "/proc/self/fd/" + std::to_string(file_.get()); }
  std::string text() const { return read_file(path(), kMostTableBytes).value_or(""); }

 private:
  explicit Output(FileDescriptor file) : file_(std::move(file)) {}
  FileDescriptor file_;
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
  std::vector<Output> outputs;
  std::vector<std::optional<Process>> children(arguments.size());
  for (size_t idx = 0; idx < arguments.size(); idx++) {
    const Words words = launch_words(cluster, cluster.nodes[idx], program, arguments[idx]);
    ASSIGN_OR_RETURN(Output output, Output::create());
    outputs.push_back(std::move(output));
    ASSIGN_OR_RETURN(Process child, Process::start({.words = words, .log = outputs[idx].path(), .input = true}));
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
          status ? describe_end(*status) : "did not answer within " + std::to_string(patience.count()) + " s";
      answers[idx] = read_answer(outputs[idx].text(), how);
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

namespace {

template <class T>
void give(const T& answer) {
  fmt::print("{}{}\n", kAnswerMark, to_json_line(answer));
  std::fflush(stdout);
}

}  // namespace

Status answer_inspection(const std::string& text) {
  ASSIGN_OR_RETURN(const NodeQuestion question, from_json_line<NodeQuestion>(text));
  give(inspect_node(question));
  return {};
}

Status answer_links(const std::string& text) {
  ASSIGN_OR_RETURN(const LinkQuestion question, from_json_line<LinkQuestion>(text));
  WorldOptions options{.join = {.rank = question.rank,
                                .size = question.size,
                                .host = question.host,
                                .port = static_cast<uint16_t>(question.port),
                                .program_version = kVersion,
                                .label = "link check",
                                .join_timeout = std::chrono::seconds(20),
                                .failure_timeout = std::chrono::seconds(5)},
                       .network_interface = question.network_interface,
                       .deadline = std::chrono::seconds(20)};
  if (!question.group_secret_file.empty()) {
    ASSIGN_OR_RETURN(options.join.secret, read_file(question.group_secret_file, kMostHandwrittenBytes));
  }
  ASSIGN_OR_RETURN(const std::unique_ptr<World> world, World::form(std::move(options)));
  RETURN_IF_ERROR(world->membership().wait_until_all_ready());
  ASSIGN_OR_RETURN(const LinkMatrix matrix, measure_links(world->mesh()));
  world->membership().leave();
  give(matrix);
  return {};
}

}  // namespace cachalot
