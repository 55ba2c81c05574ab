#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "bench/collective_bench.h"
#include "bench/collectives.h"
#include "cli/bench_ranks.h"

namespace cachalot {

// What `bench alltoall`, `allreduce` and `dispatch` have in common.
struct CollectiveFlags {
  CollectiveBenchOptions bench;
  BenchRanksOptions ranks;
  uint64_t max_bytes = 0;  // of a buffer; 0: no bound
};
// size_help: what a size is, e.g. "bytes a rank".
void add_collective_flags(CLI::App& command, CollectiveFlags& flags, const std::string& size_help);

struct CollectiveCommand {
  std::string_view name;  // "alltoall"
  std::string_view size_unit = "B";
  std::string type;                                             // asked for; must be equal on all ranks
  std::function<Result<uint64_t>(int num_ranks)> buffer_bytes;  // of one rank
  std::function<Result<std::unique_ptr<Collective>>(Mesh& mesh)> create;
};
// Starts or meets the ranks, measures, and prints the table on rank 0. The error, also: results were wrong.
Status run_collective_command(const CollectiveFlags& flags, const CollectiveCommand& command);

}  // namespace cachalot
