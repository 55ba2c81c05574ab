#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <optional>

#include "base/file.h"
#include "base/log.h"
#include "base/stop_signals.h"
#include "cli/arguments.h"
#include "cli/commands.h"
#include "cli/flags.h"
#include "cluster/commands.h"
#include "cluster/lease.h"
#include "cluster/report.h"
#include "cluster/status.h"
#include "cluster/up_down.h"
#include "config/environment.h"

namespace cachalot {
namespace {

std::string default_run_folder() {
  const std::string runtime = environment_variable("XDG_RUNTIME_DIR");
  return runtime.empty() ? fmt::format("/tmp/cachalot-{}", geteuid()) : runtime + "/cachalot";
}

std::string run_folder_of_environment() {
  const std::string of_environment = environment_variable("CACHALOT_RUN_FOLDER");
  return of_environment.empty() ? default_run_folder() : of_environment;
}

// What the commands of a person who typed this one need in order to find the same folder: " --run-folder X", or
// nothing.
std::string run_folder_words(const std::string& run_folder) {
  return run_folder == run_folder_of_environment() ? "" : " --run-folder " + shell_quoted(run_folder);
}

// As the command itself would read it, with no other flag beside it.
Status check_flag(const ClusterFile& cluster, const FlagSetting& flag, const std::string& section,
                  void (*add_command)(CLI::App&), Words arguments) {
  CLI::App app("", "cachalot");
  add_command(app);
  CLI::App* const command = app.get_subcommand(section);
  // Behind all that is checked, and in front of its own callback, which keeps what the options write to.
  command->parse_complete_callback([] { throw CLI::Success(); });
  const std::string where = fmt::format("{}:{}:{}: {}.{}", cluster.path, flag.line, flag.column, section, flag.name);
  if (flag.name == "uds")
    return make_parameter_error(flag.name, "{}: `up` watches a cluster's processes at their ports", where);
  if (flag.name == "help") return make_parameter_error(flag.name, "{}: no such flag of `cachalot {}`", where, section);
  std::ranges::copy(flag_words(flag), std::back_inserter(arguments));
  Result<Arguments> read = read_arguments(*command, arguments);
  if (!read) {
    // The file's name for it has no dashes.
    std::string message = std::move(read.error().message);
    const std::string typed = "--" + flag.name;
    if (message.starts_with(typed)) message.erase(0, typed.size());
    if (const size_t nearest = message.find("; the nearest is --"); nearest != message.npos)
      message.erase(nearest + std::string_view("; the nearest is ").size(), 2);
    return make_parameter_error(flag.name, "{}{}", where, message);
  }
  read->words.insert(read->words.begin(), section);
  std::ranges::reverse(read->words);  // as CLI11 wants them
  try {
    app.parse(read->words);
  } catch (const CLI::Success&) {
  } catch (const CLI::ParseError& error) {
    return make_parameter_error(flag.name, "{}: {}", where, error.what());
  }
  return {};
}

Status check_cluster_flags(const ClusterFile& cluster) {
  for (const FlagSetting& flag : cluster.serve_flags)
    RETURN_IF_ERROR(check_flag(cluster, flag, "serve", add_serve_command, {"--model=" + cluster.model}));
  for (const FlagSetting& flag : cluster.router.flags)
    RETURN_IF_ERROR(check_flag(cluster, flag, "router", add_router_command, {"--server-urls", "http://localhost:1"}));
  return {};
}

// The name of the cluster that is meant: that of a cluster file, a name as it is, or the only one that is up.
Result<std::string> find_cluster_name(const RunFolder& folder, const std::string& file_or_name) {
  if (std::filesystem::is_regular_file(file_or_name)) {
    ASSIGN_OR_RETURN(const ClusterFile cluster, read_cluster_file(file_or_name));
    return cluster.name;
  }
  if (std::error_code ignored; std::filesystem::is_directory(file_or_name, ignored))
    return make_error(ErrorCode::kInvalidArgument, "{} is a folder; a cluster's file is wanted, or its name",
                      file_or_name);
  if (!file_or_name.empty()) return file_or_name;
  const std::vector<std::string> names = folder.names();
  if (names.empty()) return make_error(ErrorCode::kNotFound, "no cluster is up");
  if (names.size() > 1)
    return make_error(ErrorCode::kInvalidArgument, "more than one cluster is up: {}; name one", fmt::join(names, ", "));
  return names.front();
}

struct UpFlags {
  std::string file, run_folder;
  std::optional<uint16_t> port;
  bool detach = false;
  int ready_fd = -1;
};

// A key of the environment opens the servers of all nodes, wherever they are started, unless the file names keys: then
// it is kept from servers and router, which would ask for it beside the file's.
void spread_api_key(ClusterFile& cluster) {
  constexpr const char* kVariables[] = {"CACHALOT_API_KEY", "VLLM_API_KEY"};
  const auto names_key = [](const FlagSetting& flag) {
    return flag.name == "api-key" || flag.name == "api-key-file" || flag.name == "server-api-key";
  };
  const bool file_names_key =
      std::ranges::any_of(cluster.serve_flags, names_key) || std::ranges::any_of(cluster.router.flags, names_key);
  for (const char* variable : kVariables) {
    const std::string key = environment_variable(variable);
    if (key.empty()) continue;
    if (file_names_key) {
      log::info("{} is not used: {} names the keys", variable, cluster.path);
      unsetenv(variable);
    } else if (cluster.launcher != Launcher::kLocal) {  // those of this machine have this environment
      for (ClusterNode& node : cluster.nodes) node.environment.emplace(variable, key);
      cluster.any_node.environment.emplace(variable, key);
    }
  }
}

Result<int> up(const UpFlags& flags) {
  ASSIGN_OR_RETURN(ClusterFile cluster, read_cluster(flags.file));
  if (flags.port) cluster.router.port = *flags.port;
  spread_api_key(cluster);
  if (log::current_format() == log::Format::kJson)
    for (std::vector<FlagSetting>* flags : {&cluster.serve_flags, &cluster.router.flags})
      flags->push_back({.name = "log-format", .values = {"json"}});
  ASSIGN_OR_RETURN(const std::vector<std::string> words, own_command_line());
  return run_up({.cluster = std::move(cluster),
                 .run_folder = flags.run_folder,
                 .program_name = words[0],
                 .run_folder_flag = run_folder_words(flags.run_folder),
                 .detach = flags.detach,
                 .ready_fd = flags.ready_fd,
                 .command_line = words});
}

struct DownFlags {
  std::string cluster, run_folder;
  bool now = false;
};

Status down(const DownFlags& flags) {
  ASSIGN_OR_RETURN(const RunFolder folder, RunFolder::open(flags.run_folder, run_folder_words(flags.run_folder)));
  ASSIGN_OR_RETURN(const std::string name, find_cluster_name(folder, flags.cluster));
  return run_down(folder, name, flags.now);
}

struct StatusFlags {
  std::string cluster, run_folder;
  bool json = false, watch = false;
  std::chrono::seconds interval{2};
};

Result<ClusterState> read_state(const RunFolder& folder, const std::string& name) {
  if (!folder.owner(name)) return make_error(ErrorCode::kNotFound, "cluster {} is not up", name);
  ASSIGN_OR_RETURN(const std::string text, read_file(folder.state_path(name)));
  return parse_cluster_state(text, folder.state_path(name));
}

// A terminal's other page, without a cursor, for as long as this lives.
class OtherPage {
 public:
  OtherPage() { log::print(stdout, "\x1b[?1049h\x1b[?25l"); }
  ~OtherPage() { log::print(stdout, "\x1b[?25h\x1b[?1049l"); }
  OtherPage(const OtherPage&) = delete;
  OtherPage& operator=(const OtherPage&) = delete;
};

// Again and again, until a signal comes or nobody reads it any more. Where the output is no terminal, one text follows
// the other.
Status watch_status(const StatusFlags& flags, const RunFolder& folder, const std::string& name) {
  using Clock = std::chrono::steady_clock;
  StopSignals signals(std::chrono::seconds(1));
  const bool on_terminal = isatty(STDOUT_FILENO) == 1;
  std::optional<OtherPage> page;
  ServerStates before;
  for (Clock::time_point looked{};;) {
    ASSIGN_OR_RETURN(const ClusterState state, read_state(folder, name));
    ServerStates servers = collect_states(state);
    const Clock::time_point now = Clock::now();
    const std::string text = flags.json
                                 ? status_json(state, servers)
                                 : status_text(state, servers) + "\n" +
                                       rates_text(before, servers, std::chrono::duration<double>(now - looked).count());
    before = std::move(servers);
    looked = now;
    winsize size{};
    if (on_terminal && !flags.json && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row > 0) {
      if (!page) page.emplace();
      log::print(stdout, "{}", terminal_page(text, size.ws_row, size.ws_col));
    } else {
      log::print(stdout, "{}{}", text, flags.json ? "" : "\n");
    }
    if (std::ferror(stdout) != 0 || signals.wait_for(flags.interval) != 0) return {};
  }
}

Status print_status(const StatusFlags& flags) {
  ASSIGN_OR_RETURN(const RunFolder folder, RunFolder::open(flags.run_folder, run_folder_words(flags.run_folder)));
  ASSIGN_OR_RETURN(const std::string name, find_cluster_name(folder, flags.cluster));
  if (flags.watch) return watch_status(flags, folder, name);
  ASSIGN_OR_RETURN(const ClusterState state, read_state(folder, name));
  const ServerStates servers = collect_states(state);
  fmt::print("{}", flags.json ? status_json(state, servers) : status_text(state, servers));
  return {};
}

void finish_with(const Result<int>& status) {
  if (!status) finish_command(std::unexpected(status.error()));
  if (*status != 0) throw CLI::RuntimeError(*status);
}

}  // namespace

void add_run_folder_flag(CLI::App& app, std::string& run_folder) {
  run_folder = default_run_folder();
  app.add_option("--run-folder", run_folder, "Where clusters that are up leave word")
      ->envname("CACHALOT_RUN_FOLDER")
      ->capture_default_str();
}

void complete_state_dir(AgentsOptions& agents, int server) {
  std::filesystem::path path = agents.state_dir;
  if (path.empty()) {
    const size_t group = std::hash<std::string>{}(fmt::format("{}", fmt::join(agents.addresses, ",")));
    path = fmt::format("{:016x}/server-{}", group, server);
  }
  agents.state_dir = path.is_absolute() ? path : std::filesystem::path(run_folder_of_environment()) / "agents" / path;
}

Result<ClusterFile> read_cluster(const std::string& file) {
  if (file.empty()) {
    ASSIGN_OR_RETURN(const std::string model, find_built_in_model());
    return built_in_cluster(model, std::filesystem::current_path().string());
  }
  ASSIGN_OR_RETURN(ClusterFile cluster, read_cluster_file(file));
  RETURN_IF_ERROR(check_cluster_flags(cluster));
  return cluster;
}

void add_up_command(CLI::App& app) {
  auto flags = std::make_shared<UpFlags>();
  CLI::App* command = app.add_subcommand("up", "Start a cluster, all its replicas and the router, and watch over it");
  command->add_option(
      "file", flags->file,
      "The cluster file (docs/configuration.md); absent: the built-in model on this machine, 2 replicas "
      "with 2 ranks each, experts over all 4");
  command->add_flag("-d,--detach", flags->detach,
                    "Return when it is ready; it goes on in the background (else Ctrl-C stops it)");
  command->add_option("--ready-fd", flags->ready_fd)->group("");  // of the process behind --detach
  add_whole(*command, "--port", flags->port, kPortRange, "Port of the router, in place of the file's (8002)");
  add_run_folder_flag(*command, flags->run_folder);
  command->footer(
      "Replicas that lost a rank are started anew, together with those that step with them.\n"
      "`cachalot status` shows a cluster, `cachalot down` stops it. Logs are in the file's folder, in logs/.");
  command->callback([flags] { finish_with(up(*flags)); });
}

void add_down_command(CLI::App& app) {
  auto flags = std::make_shared<DownFlags>();
  CLI::App* command = app.add_subcommand("down", "Drain a cluster and stop it");
  command->add_option("cluster", flags->cluster, "Its file, or its name; absent: the only one that is up");
  command->add_flag("--now", flags->now, "End the running answers at once");
  add_run_folder_flag(*command, flags->run_folder);
  command->footer(
      "New requests are refused; running ones have the file's drain-seconds. Returns when no process is left.\n"
      "Where the cluster is not up, the status is 1.");
  command->callback([flags] { finish_command(down(*flags)); });
}

void add_status_command(CLI::App& app) {
  auto flags = std::make_shared<StatusFlags>();
  CLI::App* command = app.add_subcommand("status", "Show the replicas and ranks of a cluster, and their load");
  command->add_option("cluster", flags->cluster, "Its file, or its name; absent: the only one that is up");
  command->add_flag("--json", flags->json, "For a program to read");
  command->add_flag("--watch", flags->watch, "Again and again until Ctrl-C, on a terminal as a page that is redrawn");
  flag_values::add(*command, "--interval", flags->interval, "Seconds between two looks of --watch",
                   [](const CLI::Option& option, const std::string& text) {
                     return std::chrono::seconds(flag_values::read_whole(option, text, {.least = 1, .most = 3600}));
                   })
      ->option_text("SECONDS [2]");
  add_run_folder_flag(*command, flags->run_folder);
  command->footer(
      "What lockstep costs: 'without rows' is the part of a rank's steps to which its replica brought no tokens, "
      "taken\n"
      "for the others' sake; 'waiting' the part of its steps' time in which it waited until other ranks had done "
      "theirs.\n"
      "Where the cluster is not up, the status is 1.");
  command->callback([flags] { finish_command(print_status(*flags)); });
}

void add_report_command(CLI::App& app) {
  auto options = std::make_shared<ReportOptions>();
  auto cluster = std::make_shared<std::string>();
  CLI::App* command = app.add_subcommand("report", "Gather what a report of a fault needs, without secrets");
  command->add_option("cluster", *cluster, "Its file, or its name; absent: the only one that is up, if any is");
  command->add_option("--output", options->output,
                      "Archive to write; absent: cachalot-report-DATE.tar.gz in this folder");
  add_run_folder_flag(*command, options->run_folder);
  command->footer(
      "In it: versions, this machine, the cluster's file, its state, what servers and router say at /metrics and "
      "/state,\n"
      "and the ends of their logs. Keys, secrets and tokens are masked; look through it before you send it.");
  command->callback([options, cluster] {
    finish_command([&]() -> Status {
      ASSIGN_OR_RETURN(const RunFolder folder,
                       RunFolder::open(options->run_folder, run_folder_words(options->run_folder)));
      if (!cluster->empty() || !folder.names().empty()) {
        ASSIGN_OR_RETURN(options->cluster, find_cluster_name(folder, *cluster));
      }
      ASSIGN_OR_RETURN(const std::string written, write_report(folder, *options));
      fmt::print("{}\n", written);
      return {};
    }());
  });
}

// For `up`, which starts servers on nodes with it.
void add_lease_command(CLI::App& app) {
  auto options = std::make_shared<LeaseOptions>();
  CLI::App* command = app.add_subcommand("lease", "Run a program for as long as the standard input holds");
  command->group("");
  flag_values::add(*command, "--longest-silence", options->longest_silence,
                   "Seconds without a byte after which it is ended; 0: only when the input ends",
                   [](const CLI::Option& option, const std::string& text) {
                     return std::chrono::seconds(flag_values::read_whole(option, text, {}));
                   });
  command->add_flag("--report-end", options->report_end, "Write how it ended to the standard output, as JSON");
  command->add_option("words", options->words, "The program and its arguments, behind --")->required();
  command->callback([options] { finish_with(run_leased(*options)); });
}

}  // namespace cachalot
