#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/ports.h"
#include "comm/world.h"
#include "config/environment.h"
#include "serve/rank_processes.h"

namespace cachalot {

// The ranks of a measurement, which need no model: this process starts them all, or mpirun or srun did, or somebody by
// hand.
struct BenchRanksOptions {
  int ranks = 0;  // 0: not given
  int rank = -1;  // -1: not given
  std::string address;
  uint16_t port = 0;
  std::string transports = "auto";
  std::string network_interface;
  std::string group_secret_file;
  int start_timeout_seconds = 60;
  int deadline_seconds = 60;  // of one wait
};
void add_bench_ranks_flags(CLI::App& command, BenchRanksOptions& options);

// This process among the ranks.
struct BenchPlace {
  int rank = 0, size = 1;
  int local_size = 1;  // ranks on this node, as far as known
  std::string address;
  uint16_t port = 0;  // 0: any that is free, known to the ranks that this process starts
  bool starts_others = false;
};
// num_cores: where nobody says how many ranks, one a core, but at least two. The error: flags contradict each other, or
// what mpirun or srun says.
Result<BenchPlace> find_bench_place(const BenchRanksOptions& options, const std::optional<LaunchedRank>& launched,
                                    int num_cores);

class BenchRanks {
 public:
  // Waits for all ranks. settings: what must be equal on all. Errors: those of World::form(); a rank that this process
  // started has ended.
  static Result<std::unique_ptr<BenchRanks>> meet(const BenchRanksOptions& options, BenchPlace place,
                                                  std::vector<std::pair<std::string, std::string>> settings);

  World& world() { return *world_; }
  // Says goodbye, and waits for the ranks that this process started.
  void leave();

 private:
  BenchRanks() = default;

  std::optional<KeptPort> meeting_port_;      // where this process starts the others
  std::unique_ptr<RankProcesses> processes_;  // none: this process starts no rank
  std::unique_ptr<World> world_;
};

}  // namespace cachalot
