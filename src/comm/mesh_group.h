#pragma once

#include <memory>
#include <vector>

#include "comm/group.h"
#include "comm/mesh.h"
#include "tensor/view.h"

namespace cachalot {

struct MeshGroupOptions {
  std::vector<int> members;       // ranks of the mesh, this one among them; their order is the group's
  int64_t max_reduced_bytes = 0;  // of one rank's part in reduce_scatter(), as it travels
  int64_t max_summed_bytes = 0;   // of all values in all_reduce()
  int64_t max_gathered_rows = 0;  // in gather_columns()

  int64_t max_part_bytes() const;  // of what one rank adds up
  // What the group allocates: the others' shares of this rank's part.
  int64_t staging_bytes() const { return max_part_bytes() * (static_cast<int64_t>(members.size()) - 1); }
};

// Collectives over some ranks of a mesh, each in one hop (all_reduce() and barrier() in two): every message goes
// straight from its sender to where it is wanted, out of the caller's rows and, except for sums, into the caller's
// rows. Where there is nothing to send there is no message: of one token's row, one rank adds up all and tells all (or
// each of two ranks adds up all). A group of one rank moves nothing.
class MeshGroup : public Group {
 public:
  // Borrows the mesh. The error: memory.
  static Result<std::unique_ptr<MeshGroup>> create(Mesh& mesh, MeshGroupOptions options);
  ~MeshGroup() override;  // after a call that an error cut short, this ends the mesh

  int rank() const override { return rank_; }
  int size() const override { return static_cast<int>(members_.size()); }
  Status reduce_scatter(const ComputeView<2>& partial, const RowPartition& partition, View<float, 2> own,
                        const CollectiveSite& site) override;
  Status all_gather(View<const std::byte, 2> own, const RowPartition& partition, View<std::byte, 2> all,
                    const CollectiveSite& site) override;
  Status all_reduce(const ComputeView<1>& values, const CollectiveSite& site) override;
  Status all_to_all(std::span<const std::span<const std::byte>> sent, std::span<const std::span<std::byte>> received,
                    const CollectiveSite& site) override;
  Status gather_columns(View<const float, 2> part, const RowPartition& columns, View<float, 2> all, int root,
                        const CollectiveSite& site) override;
  Status broadcast(std::span<std::byte> data, int root, const CollectiveSite& site) override;
  Status barrier(const CollectiveSite& site) override;

 private:
  MeshGroup(Mesh& mesh, const MeshGroupOptions& options, int rank, Buffer staging);

  // The others in the order in which this rank turns to them: not everybody to the first one first.
  int peer_at(int step) const { return (rank_ + step) % size(); }
  // One call's messages: send() and receive() note them, exchange() moves them all. A message's size is known to both
  // sides; one of another size is the peer's error.
  void send(int to, std::span<const std::byte> data);
  void receive(int from, std::span<std::byte> buffer);
  Status exchange(const CollectiveSite& site);

  // Everybody's share of this rank's part to staging.
  template <class PartOf>
  Status exchange_parts(int64_t part_bytes, PartOf part_of, const CollectiveSite& site);
  std::byte* staged(int from, int64_t part_bytes) const {
    return staging_.data() + (from < rank_ ? from : from - 1) * part_bytes;
  }
  // own [count] = the rounded sums of this rank's part.
  template <class T, class PartOf>
  Status reduce_part(T* own, int64_t count, PartOf part_of, const CollectiveSite& site);
  // Gives any rank's values of this rank's part: `own` is what it has itself.
  template <class T>
  auto part_values(const T* own, int64_t part_bytes) const {
    return [=, this](int rank) { return rank == rank_ ? own : reinterpret_cast<const T*>(staged(rank, part_bytes)); };
  }

  Mesh& mesh_;
  std::vector<int> members_;
  int rank_;  // in the group
  int64_t max_part_bytes_;
  Buffer staging_;
  std::vector<SendOp> sends_;
  std::vector<ReceiveOp> receives_;
};

}  // namespace cachalot
