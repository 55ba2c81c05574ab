#include "comm/local/local_group.h"

#include <cstring>

namespace cachalot {

template <class T, class Read>
Status LocalGroup::share(const T& mine, const CollectiveSite& site, Read read) {
  RETURN_IF_ERROR(hub_.meet(rank_, &mine, site));
  read();
  return hub_.meet(rank_, &mine, site);
}

Status LocalGroup::reduce_scatter(const ComputeView<2>& partial, const RowPartition& partition, View<float, 2> own,
                                  const CollectiveSite& site) {
  CHECK(partial.extent(0) == partition.num_rows() && own.extent(0) == partition.count(rank_) &&
        own.extent(1) == partial.extent(1));
  return share(partial, site, [&] {
    visit_compute(partial.dtype(), [&]<class T>() {
      for (int64_t row = 0; row < own.extent(0); row++) {
        float* sum = own.row(row);
        std::fill_n(sum, own.extent(1), 0.f);
        for (int rank = 0; rank < size(); rank++) {
          const T* part = hub_.published<ComputeView<2>>(rank).as<T>().row(partition.begin(rank_) + row);
          for (int64_t col = 0; col < own.extent(1); col++) sum[col] += static_cast<float>(part[col]);
        }
      }
    });
  });
}

Status LocalGroup::all_gather(View<const std::byte, 2> own, const RowPartition& partition, View<std::byte, 2> all,
                              const CollectiveSite& site) {
  CHECK(own.extent(0) == partition.count(rank_) && all.extent(0) == partition.num_rows() &&
        own.extent(1) == all.extent(1));
  return share(own, site, [&] {
    for (int rank = 0; rank < size(); rank++) {
      const auto& part = hub_.published<View<const std::byte, 2>>(rank);
      for (int64_t row = 0; row < part.extent(0); row++)
        std::memcpy(all.row(partition.begin(rank) + row), part.row(row), static_cast<size_t>(part.extent(1)));
    }
  });
}

Status LocalGroup::gather_columns(View<const float, 2> part, View<float, 2> all, const CollectiveSite& site) {
  return share(part, site, [&] {
    int64_t first_col = 0;
    for (int rank = 0; rank < size(); rank++) {
      const auto& columns = hub_.published<View<const float, 2>>(rank);
      for (int64_t row = 0; row < columns.extent(0); row++)
        std::memcpy(all.row(row) + first_col, columns.row(row), static_cast<size_t>(columns.extent(1)) * sizeof(float));
      first_col += columns.extent(1);
    }
    CHECK(first_col == all.extent(1), "gather_columns: {} columns of {}", first_col, all.extent(1));
  });
}

Status LocalGroup::broadcast(std::span<std::byte> data, int root, const CollectiveSite& site) {
  return share(data, site, [&] {
    const auto& source = hub_.published<std::span<std::byte>>(root);
    CHECK(source.size() == data.size(), "broadcast: {} bytes of {}", data.size(), source.size());
    if (rank_ != root) std::memcpy(data.data(), source.data(), data.size());
  });
}

Status LocalGroup::barrier(const CollectiveSite& site) {
  return hub_.meet(rank_, nullptr, site);
}

}  // namespace cachalot
