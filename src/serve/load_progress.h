#pragma once

#include <chrono>
#include <cstddef>

#include "model/weight_packer.h"

namespace cachalot {

// Says how far loading is: a line that is rewritten on a terminal, else a log line every few seconds.
class LoadProgress {
 public:
  // The callback borrows this object.
  WeightPacker::Progress callback() {
    return [this](size_t done, size_t total) { report(done, total); };
  }

 private:
  void report(size_t done, size_t total);

  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now(), last_ = start_;
  bool shown_ = false;
};

}  // namespace cachalot
