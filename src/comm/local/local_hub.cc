#include "comm/local/local_hub.h"

#include <fmt/ranges.h>

namespace cachalot {

Status LocalHub::meet(int rank, const void* published, const CollectiveSite& site) {
  std::unique_lock lock(mutex_);
  const auto failure = [&](const std::vector<int>& missing) {
    return make_error(ErrorCode::kDeadlineExceeded, "{} (layer {}, step {}): rank {} waited {} ms for ranks {}",
                      site.operation, site.layer, site.step, rank, deadline_.count(), fmt::join(missing, ", "));
  };
  if (broken_)
    return make_error(ErrorCode::kUnavailable, "{}: the group of rank {} has failed before", site.operation, rank);
  published_[rank] = published;
  present_[rank] = true;
  const uint64_t generation = generation_;
  if (++num_present_ == num_ranks()) {
    num_present_ = 0;
    present_.assign(present_.size(), false);
    generation_++;
    came_.notify_all();
    return {};
  }
  if (came_.wait_for(lock, deadline_, [&] { return generation_ != generation || broken_; }) &&
      generation_ != generation)
    return {};
  broken_ = true;
  came_.notify_all();
  std::vector<int> missing;
  for (int other = 0; other < num_ranks(); other++) {
    if (!present_[other]) missing.push_back(other);
  }
  return failure(missing);
}

}  // namespace cachalot
