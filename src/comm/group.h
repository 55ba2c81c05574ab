#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <numeric>
#include <span>
#include <vector>

#include "base/error.h"
#include "comm/mesh.h"
#include "tensor/view.h"

namespace cachalot {

// How rows are shared out over ranks, or over the first of them: rank r has rows [begin(r), begin(r + 1)). The same on
// every rank.
class RowPartition {
 public:
  RowPartition(int64_t num_rows, int num_owners) : num_rows_(num_rows), num_owners_(num_owners) {}
  int64_t begin(int rank) const { return num_rows_ * std::min(rank, num_owners_) / num_owners_; }
  int64_t count(int rank) const { return begin(rank + 1) - begin(rank); }
  int64_t num_rows() const { return num_rows_; }

 private:
  int64_t num_rows_;
  int num_owners_;
};

// Collectives over some of the ranks (a replica's TP ranks). Every rank makes the same calls in the same order; every
// call has a deadline, and its error names site, host and the ranks that are missing. Sums are taken in fp32 in rank
// order from rows of the compute dtype, so every rank gets the same bits. Rows that travel are contiguous. Used by one
// thread, the engine's.
class Group {
 public:
  virtual ~Group() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;

  // own [partition.count(rank()), features] = sum over ranks of their partial rows of that part. partial: [num_rows,
  // features].
  virtual Status reduce_scatter(const ComputeView<2>& partial, const RowPartition& partition, View<float, 2> own,
                                const CollectiveSite& site) = 0;
  // all [num_rows, bytes] = each rank's own rows, in the partition's order. Rows are bytes: any format. `own` may be
  // its place in `all`.
  virtual Status all_gather(View<const std::byte, 2> own, const RowPartition& partition, View<std::byte, 2> all,
                            const CollectiveSite& site) = 0;
  // values [num_values] = the sum over ranks, rounded to the compute dtype once.
  virtual Status all_reduce(const ComputeView<1>& values, const CollectiveSite& site) = 0;
  // received[r] = what rank r has in sent[this rank]; sizes may differ from pair to pair, and both sides know them.
  virtual Status all_to_all(std::span<const std::span<const std::byte>> sent,
                            std::span<const std::span<std::byte>> received, const CollectiveSite& site) = 0;
  // On the root, all [num_rows, columns.num_rows()] = the ranks' columns side by side; elsewhere `all` is not looked
  // at. part: [num_rows, columns.count(rank())].
  virtual Status gather_columns(View<const float, 2> part, const RowPartition& columns, View<float, 2> all, int root,
                                const CollectiveSite& site) = 0;
  virtual Status broadcast(std::span<std::byte> data, int root, const CollectiveSite& site) = 0;
  virtual Status barrier(const CollectiveSite& site) = 0;
};

// sum [count] = the ranks' values, added in fp32 in rank order, so that whoever adds them up gets the same bits.
// values_of(rank) gives a rank's [count] values.
template <class T, class ValuesOf>
void add_in_rank_order(int num_ranks, ValuesOf values_of, int64_t count, float* sum) {
  std::fill_n(sum, count, 0.f);
  for (int rank = 0; rank < num_ranks; rank++) {
    const T* values = values_of(rank);
    for (int64_t idx = 0; idx < count; idx++) sum[idx] += static_cast<float>(values[idx]);
  }
}

// rounded [count] = the same, rounded to the values' own type once. May be one of the ranks' values.
template <class T, class ValuesOf>
void add_and_round(int num_ranks, ValuesOf values_of, int64_t count, T* rounded) {
  constexpr int64_t kAtOnce = 1024;  // floats, which stay in the first-level cache while the ranks' values are added
  float sum[kAtOnce];
  for (int64_t begin = 0; begin < count; begin += kAtOnce) {
    const int64_t num_sums = std::min(kAtOnce, count - begin);
    add_in_rank_order<T>(num_ranks, [&](int rank) { return values_of(rank) + begin; }, num_sums, sum);
    for (int64_t idx = 0; idx < num_sums; idx++) rounded[begin + idx] = static_cast<T>(sum[idx]);
  }
}

struct GroupOptions {
  std::vector<int> members;       // ranks of the mesh, this one among them; their order is the group's
  int64_t max_reduced_bytes = 0;  // of one rank's part in reduce_scatter(), as it travels
  int64_t max_summed_bytes = 0;   // of all values in all_reduce()
  int64_t max_gathered_rows = 0;  // in gather_columns()
};

// Borrows the mesh. The error: memory. Every message goes straight from its sender to where it is wanted; a group of
// one rank moves nothing.
Result<std::unique_ptr<Group>> make_message_group(Mesh& mesh, GroupOptions options);

// So many ranks, from the first one on.
inline std::vector<int> consecutive(int first, int count) {
  std::vector<int> ranks(static_cast<size_t>(count));
  std::iota(ranks.begin(), ranks.end(), first);
  return ranks;
}

// A row of each of these ranks, in their order, by messages: for what is said once. All call it, with as many numbers.
template <class T>
Result<std::vector<T>> gather_rows(Mesh& mesh, const std::vector<int>& members, std::span<const T> own,
                                   const CollectiveSite& site) {
  const auto bytes = static_cast<int64_t>(own.size_bytes()), num_rows = static_cast<int64_t>(members.size());
  std::vector<T> rows(own.size() * members.size());
  ASSIGN_OR_RETURN(const auto group, make_message_group(mesh, {.members = members}));
  RETURN_IF_ERROR(group->all_gather(
      View<const std::byte, 2>(std::as_bytes(own).data(), 1, bytes), RowPartition(num_rows, static_cast<int>(num_rows)),
      View<std::byte, 2>(std::as_writable_bytes(std::span(rows)).data(), num_rows, bytes), site));
  return rows;
}

// Collectives among ranks of a mesh, which is borrowed, by the way that suits them: the board of three or more ranks of
// one node, else messages. A rank's first such group has the board; ranks make their groups in the same order. The
// error: memory.
Result<std::unique_ptr<Group>> make_group(Mesh& mesh, GroupOptions options);

}  // namespace cachalot
