#pragma once

#include <cstdint>
#include <string_view>

#include "base/error.h"

namespace cachalot {

// What a size of the sweep is in the end: `bytes` a rank, `count` elements in the table's sense.
struct CollectiveSize {
  uint64_t bytes = 0, count = 0;
};

// A collective as it is measured: this rank's data, and one call on it. Every rank makes the same calls.
class Collective {
 public:
  virtual ~Collective() = default;
  virtual std::string_view type() const = 0;  // of its elements, by nccl-tests' name
  // The size of the calls that follow. Errors: it is too small for so many ranks.
  virtual Result<CollectiveSize> set_size(uint64_t size) = 0;
  virtual Status run() = 0;
  // Runs once on numbers that tell ranks and places apart; gives how many came to this rank wrong.
  virtual Result<uint64_t> check() = 0;
};

}  // namespace cachalot
