#pragma once

#include <cstdint>
#include <string_view>

namespace cachalot {

// Where in a step a collective stands; every error names it.
struct CollectiveSite {
  std::string_view operation;  // what for, e.g. "o_proj reduce-scatter"
  uint64_t step = 0;
  int layer = -1;
};

}  // namespace cachalot
