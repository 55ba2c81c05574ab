#pragma once

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <vector>

#include "comm/expert_exchange.h"
#include "comm/group.h"

namespace cachalot {

// The meeting point of ranks that are threads of one process: for one rank alone, and for tests of many. Thread-safe.
class LocalHub {
 public:
  LocalHub(int num_ranks, std::chrono::milliseconds deadline)
      : deadline_(deadline), published_(num_ranks), present_(num_ranks) {}

  int num_ranks() const { return static_cast<int>(published_.size()); }

  // Waits until every rank has come, as often. `published` is what the others may read until the next meeting. The
  // error names the ranks that did not come; after one, every later meeting fails.
  Status meet(int rank, const void* published, const CollectiveSite& site);
  template <class T>
  const T& published(int rank) const {
    return *static_cast<const T*>(published_[rank]);
  }

 private:
  std::chrono::milliseconds deadline_;
  std::mutex mutex_;
  std::condition_variable came_;
  std::vector<const void*> published_;
  std::vector<bool> present_;
  int num_present_ = 0;
  uint64_t generation_ = 0;
  bool broken_ = false;
};

}  // namespace cachalot
