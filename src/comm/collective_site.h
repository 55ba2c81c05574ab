#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <string>
#include <string_view>

namespace cachalot {

// Where in a step a collective stands; every error names it.
struct CollectiveSite {
  std::string_view operation;  // what for, e.g. "o_proj reduce-scatter"
  uint64_t step = 0;
  int layer = -1;

  // "o_proj reduce-scatter (layer 3, step 17)"
  std::string text() const {
    if (layer < 0) return fmt::format("{} (step {})", operation, step);
    return fmt::format("{} (layer {}, step {})", operation, layer, step);
  }
};

}  // namespace cachalot
