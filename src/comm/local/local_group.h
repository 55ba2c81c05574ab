#pragma once

#include "comm/group.h"
#include "comm/local/local_hub.h"

namespace cachalot {

// A Group of threads of one process; of one rank, every call is a copy at most.
class LocalGroup : public Group {
 public:
  // Borrows the hub.
  LocalGroup(LocalHub& hub, int rank) : hub_(hub), rank_(rank) {}

  int rank() const override { return rank_; }
  int size() const override { return hub_.num_ranks(); }
  Status reduce_scatter(const ComputeView<2>& partial, const RowPartition& partition, View<float, 2> own,
                        const CollectiveSite& site) override;
  Status all_gather(View<const std::byte, 2> own, const RowPartition& partition, View<std::byte, 2> all,
                    const CollectiveSite& site) override;
  Status gather_columns(View<const float, 2> part, View<float, 2> all, const CollectiveSite& site) override;
  Status broadcast(std::span<std::byte> data, int root, const CollectiveSite& site) override;
  Status barrier(const CollectiveSite& site) override;

 private:
  // Publishes `mine`, lets `read` see the others' (by rank), and waits until all have read.
  template <class T, class Read>
  Status share(const T& mine, const CollectiveSite& site, Read read);

  LocalHub& hub_;
  int rank_;
};

}  // namespace cachalot
