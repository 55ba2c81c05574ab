#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "bench/collective_bench.h"

namespace cachalot {

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
