#include "cli/bench_ranks.h"

#include <sched.h>

#include <algorithm>
#include <stop_token>

#include "base/file.h"
#include "base/log.h"
#include "cli/commands.h"
#include "cli/flags.h"
#include "config/environment.h"
#include "config/version.h"
#include "device/thread_pool.h"

namespace cachalot {
namespace {

constexpr uint16_t kPort = 29550;  // as for serve

// Ranks that do not outnumber the cores have one each: two that the kernel puts on one core would measure its mistake.
void take_own_core(const World& world) {
  const CoreSharers sharers = core_sharers(world.members(), world.rank());
  const std::vector<int>& cores = world.members()[static_cast<size_t>(world.rank())].cores;
  const ThreadPoolOptions share = share_threads(numa_domains(cores), sharers.place, sharers.count, 0);
  if (share.cores.empty()) return;
  cpu_set_t core;
  CPU_ZERO(&core);
  CPU_SET(share.cores.front(), &core);
  if (sched_setaffinity(0, sizeof core, &core) != 0) log::warn("this rank cannot be bound to a core of its own");
}

Result<std::unique_ptr<RankProcesses>> start_others(const BenchPlace& place) {
  ASSIGN_OR_RETURN(const std::vector<std::string> own, own_command_line());
  std::vector<std::vector<std::string>> command_lines;
  for (int rank = 1; rank < place.size; rank++) {
    command_lines.push_back(own);
    for (std::string argument : {fmt::format("--ranks={}", place.size), fmt::format("--rank={}", rank),
                                 fmt::format("--data-parallel-address={}", place.address),
                                 fmt::format("--data-parallel-rpc-port={}", place.port)})
      command_lines.back().push_back(std::move(argument));
  }
  return RankProcesses::start(command_lines);
}

TransportChoice choice_of(const std::string& transports) {
  if (transports == "shm") return TransportChoice::kShm;
  return transports == "ucx" ? TransportChoice::kUcx : TransportChoice::kAuto;
}

// A rank that mpirun or srun started.
Result<BenchPlace> find_launched_place(const BenchRanksOptions& options, const LaunchedRank& launched) {
  if (options.ranks > 0 && options.ranks != launched.size) {
    return make_parameter_error("--ranks", "--ranks {} contradicts {}, which say {}; leave --ranks out", options.ranks,
                                launched.variables, launched.size);
  }
  if (options.rank >= 0 && options.rank != launched.rank) {
    return make_parameter_error("--rank", "--rank {} contradicts {}, which say {}; leave --rank out", options.rank,
                                launched.variables, launched.rank);
  }
  BenchPlace place{.rank = launched.rank,
                   .size = launched.size,
                   .local_size = std::max(launched.local_size, 1),
                   .address = options.address.empty() ? launched.address : options.address,
                   .port = options.port > 0    ? options.port
                           : launched.port > 0 ? launched.port
                                               : kPort};
  if (place.address.empty()) {
    return make_parameter_error("--data-parallel-address",
                                "--data-parallel-address: {} do not tell on which host rank 0 is; name it",
                                launched.variables);
  }
  return place;
}

// A rank that somebody started by hand, or another rank.
Result<BenchPlace> find_named_place(const BenchRanksOptions& options) {
  if (options.ranks == 0) return make_parameter_error("--rank", "--rank {} needs --ranks, too", options.rank);
  if (options.rank >= options.ranks) {
    return make_parameter_error("--rank", "--rank {}: --ranks says {}, so 0 to {}", options.rank, options.ranks,
                                options.ranks - 1);
  }
  return BenchPlace{.rank = options.rank,
                    .size = options.ranks,
                    .address = options.address.empty() ? "127.0.0.1" : options.address,
                    .port = options.port > 0 ? options.port : kPort};
}

}  // namespace

void add_bench_ranks_flags(CLI::App& command, BenchRanksOptions& options) {
  add_whole(command, "--ranks", options.ranks, {.least = 1, .most = 4096},
            "Ranks, which this process starts on this machine; one a core if absent. Not under mpirun or srun")
      ->take_last();
  add_whole(command, "--rank", options.rank, {},
            "Which rank this is, where every rank is started by hand; then --ranks, too")
      ->take_last();
  command.add_option("--data-parallel-address", options.address, "Where rank 0 waits for all ranks (it listens there)")
      ->take_last();
  add_whole(command, "--data-parallel-rpc-port", options.port, {.least = 1, .most = 65535}, "The port there")
      ->take_last();
  add_transports_flag(command, options.transports);
  command
      .add_option("--network-interface", options.network_interface,
                  "Interface for traffic between nodes; the one that reaches rank 0 if absent")
      ->envname("GLOO_SOCKET_IFNAME");
  add_group_secret_flag(command, options.group_secret_file);
  add_whole(command, "--start-timeout", options.start_timeout_seconds, {.least = 1, .most = 86'400},
            "Seconds that a rank waits for the others");
  add_whole(command, "--deadline", options.deadline_seconds, {.least = 1, .most = 86'400},
            "Seconds that one collective may take");
}

Result<BenchPlace> find_bench_place(const BenchRanksOptions& options, const std::optional<LaunchedRank>& launched,
                                    int num_cores) {
  // One process of its own is like one that was started by hand, and may start others.
  const bool launched_alone = launched && launched->size == 1;
  if (launched && !launched_alone) return find_launched_place(options, *launched);
  if (options.rank >= 0) return find_named_place(options);
  const int size = options.ranks > 0 ? options.ranks : launched_alone ? 1 : std::max(num_cores, 2);
  return BenchPlace{.size = size,
                    .local_size = size,
                    .address = options.address.empty() ? "127.0.0.1" : options.address,
                    .port = options.port,
                    .starts_others = size > 1};
}

Result<std::unique_ptr<BenchRanks>> BenchRanks::meet(const BenchRanksOptions& options, BenchPlace place,
                                                     std::vector<std::pair<std::string, std::string>> settings) {
  std::unique_ptr<BenchRanks> ranks(new BenchRanks());
  std::string secret;
  if (!options.group_secret_file.empty()) {
    ASSIGN_OR_RETURN(secret, read_file(options.group_secret_file, kMostHandwrittenBytes));
  }
  std::stop_source stop;
  std::string ended;
  if (place.starts_others) {
    if (place.port == 0) {
      ASSIGN_OR_RETURN(KeptPort port, KeptPort::keep());
      place.port = port.port();
      ranks->meeting_port_.emplace(std::move(port));
    }
    ASSIGN_OR_RETURN(ranks->processes_, start_others(place));
    // One that ends while all are being waited for ends the waiting.
    ranks->processes_->watch([&](int child, const EndReport& end) {
      ended = fmt::format("rank {}, which this process started, {}", child + 1, end.text());
      stop.request_stop();
    });
  }
  auto formed = World::form({.join = {.rank = place.rank,
                                      .size = place.size,
                                      .host = place.address,
                                      .port = place.port,
                                      .program_version = kVersion,
                                      .settings = std::move(settings),
                                      .secret = std::move(secret),
                                      .join_timeout = std::chrono::seconds(options.start_timeout_seconds),
                                      .stop = stop.get_token()},
                             .transports = choice_of(options.transports),
                             .network_interface = options.network_interface,
                             .ucx_environment = environment_variables("UCX_"),
                             .deadline = std::chrono::seconds(options.deadline_seconds)});
  if (ranks->processes_) ranks->processes_->stop_watching();
  if (!formed && !ended.empty()) return make_error(ErrorCode::kUnavailable, "{}", ended);
  if (!formed) return std::unexpected(std::move(formed.error()));
  ranks->world_ = std::move(*formed);
  take_own_core(*ranks->world_);
  return ranks;
}

void BenchRanks::leave() {
  world_->membership().leave();
  processes_.reset();
}

}  // namespace cachalot
