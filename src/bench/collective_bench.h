#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "bench/collectives.h"
#include "comm/mesh.h"

namespace cachalot {

// The options of nccl-tests, where it has them.
struct CollectiveBenchOptions {
  uint64_t min_size = 0, max_size = 0;
  uint64_t step_factor = 2;  // from size to size, or
  uint64_t step_size = 0;    // what is added; 0: the factor counts
  int iterations = 20, warmup = 5;
  int checks = 1;  // passes that check results, apart from those that are timed

  std::vector<uint64_t> sizes() const;
};

// Of one size.
struct CollectiveFigure {
  CollectiveSize size;
  double seconds = 0;        // of one call: the ranks' mean, and of the iterations the median
  double bytes_sent = 0;     // by one rank to others, in one call: the ranks' mean
  uint64_t num_wrong = 0;    // elements, on all ranks
  bool was_checked = false;  // else num_wrong says nothing

  double algorithm_bandwidth() const { return static_cast<double>(size.bytes) / seconds; }
  double bus_bandwidth() const { return bytes_sent / seconds; }
};

// Measures the sizes one after the other. `on_figure` is called as each is done, with the same figure on every rank.
// Every rank of the mesh calls this with the same options. Errors: those of the collective and of the mesh.
Status run_collective_bench(Collective& collective, Mesh& mesh, const CollectiveBenchOptions& options,
                            const std::function<void(const CollectiveFigure&)>& on_figure);

// The table of nccl-tests, line by line: figures, and lines that start with #.
struct CollectiveTable {
  struct Rank {
    std::string host;
    int64_t pid = 0;
    std::string transport;  // between it and rank 0; empty for rank 0
  };

  std::string_view name;  // "alltoall"
  std::string_view type;
  std::string_view size_unit = "B";  // of the sweep

  std::string header(const std::vector<Rank>& ranks, const CollectiveBenchOptions& options) const;
  std::string row(const CollectiveFigure& figure) const;
  static std::string footer(const std::vector<CollectiveFigure>& figures);
};

}  // namespace cachalot
