#include "cluster/report.h"

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <vector>

#include "base/file.h"
#include "base/process.h"
#include "base/text.h"
#include "cluster/mask.h"
#include "cluster/status.h"
#include "config/cluster_file.h"
#include "config/environment.h"
#include "config/version.h"
#include "http/client.h"
#include "http/tls.h"

namespace cachalot {

namespace {

constexpr std::chrono::seconds kAnswerPatience{5};
constexpr uint64_t kLogTail = 1 << 20;
constexpr const char* kReadme =
    "What `cachalot report` gathered. Secrets that it knows, and what stands where secrets usually do, are masked "
    "(***);\n"
    "addresses, paths and names of machines are not. Look through it before you send it.\n";

std::string tail_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file) return {};
  const auto size = static_cast<uint64_t>(std::max<std::streamoff>(file.tellg(), 0));
  std::string text(std::min(size, kLogTail), '\0');
  file.seekg(static_cast<std::streamoff>(size - text.size()));
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  return text;
}

// Files of one report, masked as they are written.
class Report {
 public:
  explicit Report(std::string folder) : folder_(std::move(folder)) {}

  void add(const std::string& name, const std::string& text) {
    if (text.empty()) return miss(name, "it is empty, or cannot be read");
    const std::filesystem::path path = folder_ / name;
    std::error_code ignored;
    std::filesystem::create_directories(path.parent_path(), ignored);
    if (const Status written = write_file(path, mask.apply(text)); !written) miss(name, written.error().message);
  }
  void add_program(const std::string& name, const std::vector<std::string>& words) {
    const auto done = run_program({.words = words, .errors = null_.get()}, kAnswerPatience);
    done ? add(name, done->output) : miss(name, done.error().message);
  }
  void add_answer(const std::string& name, const http::Client& client, const std::string& url) {
    const auto parsed = http::parse_url(url);
    const Result<http::Response> answer =
        parsed ? client.fetch({.url = *parsed}) : Result<http::Response>(std::unexpected(parsed.error()));
    answer ? add(name, answer->body) : miss(name, answer.error().message);
  }
  void miss(const std::string& name, const std::string& why) { missing_ += fmt::format("{}: {}\n", name, why); }
  std::string missing() const { return missing_.empty() ? "nothing is missing\n" : missing_; }

  Mask mask;

 private:
  const std::filesystem::path folder_;
  std::string missing_;
  const FileDescriptor null_ = open_file("/dev/null").value_or(FileDescriptor());
};

void add_words_of_file(const std::string& path, Mask& mask) {
  std::ifstream file(path);
  for (std::string word; file >> word;) mask.add(word);
}

// What the cluster's file says of keys, and the files that it names; its own environment, too.
void learn_secrets(const ClusterFile& cluster, Mask& mask) {
  for (const auto* flags : {&cluster.serve_flags, &cluster.router.flags})
    for (const FlagSetting& flag : *flags)
      for (const std::string& value : flag.values) {
        if (is_secret_name(flag.name)) mask.add(value);
        if (flag.name == "group-secret-file" || flag.name == "api-key-file")
          add_words_of_file(std::filesystem::path(cluster.folder) / value, mask);
      }
  std::vector<const ClusterNode*> nodes{&cluster.any_node};
  for (const ClusterNode& node : cluster.nodes) nodes.push_back(&node);
  for (const ClusterNode* node : nodes)
    for (const auto& [name, value] : node->environment)
      if (is_secret_name(name)) mask.add(value);
}

void add_machine(Report& report) {
  std::string variables;
  for (const std::string& variable : environment_variables("")) {
    const size_t equals = variable.find('=');
    const std::string name = variable.substr(0, equals);
    // "x-api-key=secret,other=y" in OpenTelemetry's fields of requests.
    if (is_secret_name(name)) report.mask.add(std::string_view(variable).substr(equals + 1));
    if (name.ends_with("_HEADERS"))
      for (std::string_view rest = std::string_view(variable).substr(equals); !rest.empty();) {
        const std::string_view field = rest.substr(0, rest.find(','));
        report.mask.add(field.substr(std::min(field.rfind('=') + 1, field.size())));
        rest.remove_prefix(std::min(field.size() + 1, rest.size()));
      }
    for (const char* prefix : {"CACHALOT_", "VLLM_", "UCX_", "OTEL_", "SLURM_", "OMP_", "XDG_RUNTIME_DIR"})
      if (name.starts_with(prefix)) variables += is_secret_name(name) ? name + "=***\n" : variable + "\n";
  }
  report.add("README.txt", kReadme);
  report.add("version.txt", fmt::format("cachalot {}\n", kVersion));
  report.add("machine/environment.txt", variables.empty() ? "none that matters is set\n" : variables);
  for (const auto& [name, path] :
       {std::pair("os-release.txt", "/etc/os-release"), std::pair("meminfo.txt", "/proc/meminfo"),
        std::pair("limits.txt", "/proc/self/limits"), std::pair("load.txt", "/proc/loadavg"),
        std::pair("cgroup.txt", "/proc/self/cgroup"), std::pair("cgroup-memory.txt", "/sys/fs/cgroup/memory.max"),
        std::pair("cgroup-cpu.txt", "/sys/fs/cgroup/cpu.max"),
        std::pair("huge-pages.txt", "/sys/kernel/mm/transparent_hugepage/enabled")})
    report.add(fmt::format("machine/{}", name), read_file(path).value_or(""));
  report.add_program("machine/kernel.txt", {"uname", "-a"});
  report.add_program("machine/lscpu.txt", {"lscpu"});
  report.add_program("machine/disks.txt", {"df", "-h"});
}

void add_cluster(const ClusterState& state, Report& report) {
  const ServerStates servers = collect_states(state);
  report.add("status.txt", status_text(state, servers));
  report.add("status.json", status_json(state, servers));
  const http::IoThreads threads(1);
  const http::Client client(threads, {.connect_timeout = kAnswerPatience,
                                      .idle_timeout = kAnswerPatience,
                                      .tls = http::TlsContext::of_trusting_client()});
  for (const auto* members : {&state.replicas, &state.router})
    for (const MemberState& member : *members) {
      std::string name = member.label;
      std::ranges::replace(name, ' ', '-');
      for (const char* path : {"state", "metrics", members == &state.router ? "replicas" : "load"})
        report.add_answer(fmt::format("{}/{}.txt", name, path), client, fmt::format("{}/{}", member.url, path));
      report.add(name + "/log.txt", tail_of(member.log));
    }
}

}  // namespace

Result<std::string> write_report(const RunFolder& folder, const ReportOptions& options) {
  std::string output = options.output;
  if (output.empty()) {
    const std::time_t now = std::time(nullptr);
    output = fmt::format("cachalot-report-{:%Y%m%d-%H%M%S}.tar.gz", fmt::localtime(now));
  }
  const std::filesystem::path archive = std::filesystem::absolute(output);
  std::string name = archive.filename();
  name = name.substr(0, name.find(".tar"));
  std::string scratch = std::filesystem::temp_directory_path() / "cachalot-report-XXXXXX";
  if (!mkdtemp(scratch.data())) return os_error(scratch, "cannot be made");  // this user's alone
  const struct Removal {
    std::string path;
    ~Removal() {
      std::error_code ignored;
      std::filesystem::remove_all(path, ignored);
    }
  } removal{scratch};
  Report report(scratch + "/" + name);
  if (!options.cluster.empty()) {
    ASSIGN_OR_RETURN(const std::string text, read_file(folder.state_path(options.cluster)));
    ASSIGN_OR_RETURN(const ClusterState state, parse_cluster_state(text, folder.state_path(options.cluster)));
    const auto cluster = state.file.empty() ? Result<ClusterFile>() : read_cluster_file(state.file);
    if (cluster) learn_secrets(*cluster, report.mask);
    add_machine(report);  // and its environment's secrets
    if (!state.file.empty() && cluster)
      report.add("cluster.yaml", read_file(state.file).value_or(""));
    else if (!cluster)
      report.miss("cluster.yaml", cluster.error().message);  // whose secrets nobody knows
    add_cluster(state, report);
  } else {
    add_machine(report);
  }
  report.add("missing.txt", report.missing());
  const mode_t before = umask(077);
  const auto packed = run_program({.words = {"tar", "-C", scratch, "-czf", archive, name}}, std::chrono::minutes(2));
  umask(before);
  if (!packed) return std::unexpected(packed.error());
  if (packed->status != 0)
    return make_error(ErrorCode::kIo, "{} cannot be written: tar {}", archive.string(), describe_end(packed->status));
  return archive.string();
}

}  // namespace cachalot
