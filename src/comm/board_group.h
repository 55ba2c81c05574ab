#pragma once

#include <memory>
#include <span>
#include <vector>

#include "comm/board.h"
#include "comm/group.h"
#include "comm/mesh.h"
#include "comm/mesh_group.h"

namespace cachalot {

// Collectives among three or more ranks of one node through their board: one wait, of all for the last, where messages
// take a wake-up a pair. What does not fit a slot goes as messages, whose ends copy at the same time, and so do
// broadcasts and columns for the root, for which nobody else need wait.
class BoardGroup : public Group {
 public:
  // messages: the same ranks' group over the same mesh, which is borrowed.
  BoardGroup(Mesh& mesh, std::unique_ptr<Board> board, std::unique_ptr<Group> messages);

  int rank() const override { return board_->rank(); }
  int size() const override { return board_->size(); }
  Status reduce_scatter(const ComputeView<2>& partial, const RowPartition& partition, View<float, 2> own,
                        const CollectiveSite& site) override;
  Status all_gather(View<const std::byte, 2> own, const RowPartition& partition, View<std::byte, 2> all,
                    const CollectiveSite& site) override;
  // Of few bytes the last rank to arrive adds up all: one round, and the others sleep once. Of more, each rank adds up
  // a part, in two rounds.
  Status all_reduce(const ComputeView<1>& values, const CollectiveSite& site) override;
  // Each rank decides for what it sends, as nobody knows all sizes.
  Status all_to_all(std::span<const std::span<const std::byte>> sent, std::span<const std::span<std::byte>> received,
                    const CollectiveSite& site) override;
  Status gather_columns(View<const float, 2> part, const RowPartition& columns, View<float, 2> all, int root,
                        const CollectiveSite& site) override;
  Status broadcast(std::span<std::byte> data, int root, const CollectiveSite& site) override;
  Status barrier(const CollectiveSite& site) override;

 private:
  enum class Call : uint64_t { kReduceScatter, kAllGather, kAllReduce, kAllReduceByParts, kAllToAll, kBarrier };

  bool fits(int64_t bytes) const { return bytes <= static_cast<int64_t>(board_->slot_bytes()); }
  // The others in the order in which this rank turns to them: not everybody to the first one first.
  int peer_at(int step) const { return (rank() + step) % size(); }
  Status begin() const;  // the error: the mesh has failed
  // Arrives and waits for the others; the last to arrive calls `last_does` first. The error: one of them does not do
  // what this rank does.
  template <class LastDoes>
  Status meet(Call call, int64_t bytes, LastDoes last_does, const CollectiveSite& site);
  Status meet(Call call, int64_t bytes, const CollectiveSite& site);
  Error disagreement(const CollectiveSite& site) const;
  // Of all_to_all(): whether everything is on the slot (else nothing); whether everything was read, or else what is
  // left to come is in received_left_.
  bool write_parts(std::span<const std::span<const std::byte>> sent);
  Result<bool> read_parts(std::span<const std::span<std::byte>> received, const CollectiveSite& site);
  template <class T>
  Status all_reduce_by_last(T* values, int64_t count, const CollectiveSite& site);
  template <class T>
  Status all_reduce_by_parts(T* values, int64_t count, const CollectiveSite& site);

  Mesh& mesh_;
  std::unique_ptr<Board> board_;
  std::unique_ptr<Group> messages_;
  std::vector<std::span<const std::byte>> sent_left_;  // of all_to_all(), for messages
  std::vector<std::span<std::byte>> received_left_;
};

// Collectives among ranks of a mesh, which is borrowed, by the way that suits them: the board of three or more ranks of
// one node, else messages (comm/mesh_group.h). A rank's first such group has the board; ranks make
// their groups in the same order. The error: memory.
Result<std::unique_ptr<Group>> make_group(Mesh& mesh, MeshGroupOptions options);

}  // namespace cachalot
