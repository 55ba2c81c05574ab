#include <algorithm>
#include <array>
#include <cstring>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/math.h"
#include "comm/group.h"
#include "comm/mesh.h"

namespace cachalot {
namespace {

// Up to so many bytes one rank adds up all: a second round costs everybody a second sleep.
constexpr int64_t kLastAddsUp = 32 << 10;
constexpr size_t kCacheLine = 64;

// At the start of a slot in all_to_all(), one for each rank: where in the slot the bytes for it stand.
struct Part {
  uint64_t offset = 0;  // 0: they come as a message
  uint64_t size = 0;
};

void copy(const void* from, void* to, int64_t bytes) {
  if (bytes > 0) std::memcpy(to, from, static_cast<size_t>(bytes));  // nothing may be nowhere
}

// A slot as values of type T.
template <class T>
const T* values_in(std::span<const std::byte> slot) {
  return reinterpret_cast<const T*>(slot.data());
}
template <class T>
T* values_in(std::span<std::byte> slot) {
  return reinterpret_cast<T*>(slot.data());
}

// What a rank says that it does: a call and its bytes, the same on all.
constexpr int kCallShift = 56;

std::string describe(uint64_t note) {
  constexpr std::array<std::string_view, 6> kCalls = {"reduce-scatter", "all-gather", "all-reduce",
                                                      "all-reduce",     "all-to-all", "barrier"};
  const uint64_t call = note >> kCallShift;
  return fmt::format("{} of {} bytes", call < kCalls.size() ? kCalls[call] : "unknown call",
                     note & ((uint64_t{1} << kCallShift) - 1));
}

// Collectives among three or more ranks of one node through their board: one wait, of all for the last, where messages
// take a wake-up a pair. What does not fit a slot goes as messages, whose ends copy at the same time, and so do
// broadcasts and columns for the root, for which nobody else need wait.
class BoardGroup : public Group {
 public:
  // messages: the same ranks' group over the same mesh, which is borrowed.
  BoardGroup(Mesh& mesh, std::unique_ptr<Board> board, std::unique_ptr<Group> messages)
      : mesh_(mesh), board_(std::move(board)), messages_(std::move(messages)) {
    CHECK(board_->size() == messages_->size() && board_->rank() == messages_->rank());
  }

  int rank() const override { return board_->rank(); }
  int size() const override { return board_->size(); }

  Status reduce_scatter(const ComputeView<2>& partial, const RowPartition& partition, View<float, 2> own,
                        const CollectiveSite& site) override {
    const int64_t features = own.extent(1), num_rows = partition.num_rows();
    const auto row_bytes = features * static_cast<int64_t>(dtype_size(partial.dtype()));
    if (!fits(num_rows * row_bytes)) return messages_->reduce_scatter(partial, partition, own, site);
    const ExchangeClock::Call clocked(mesh_.clock(), site);
    CHECK(partial.extent(0) == num_rows && own.extent(0) == partition.count(rank()) && partial.extent(1) == features);
    return visit_compute(partial.dtype(), [&]<class T>() -> Status {
      const View<T, 2> rows = partial.as<T>();
      CHECK(rows.is_contiguous());
      RETURN_IF_ERROR(begin());
      // The rows before this rank's own and those after them.
      const int64_t first = partition.begin(rank()) * features, past = partition.begin(rank() + 1) * features;
      constexpr auto kBytes = static_cast<int64_t>(sizeof(T));
      T* const slot = values_in<T>(board_->own());
      copy(rows.data(), slot, first * kBytes);
      copy(rows.data() + past, slot + past, (num_rows * features - past) * kBytes);
      RETURN_IF_ERROR(meet(Call::kReduceScatter, num_rows * row_bytes, site));
      for (int64_t row = 0; row < own.extent(0); row++) {
        const auto values_of = [&](int member) {
          return (member == rank() ? rows.data() : values_in<T>(board_->of(member))) + first + row * features;
        };
        add_in_rank_order<T>(size(), values_of, features, own.row(row));
      }
      const int64_t own_bytes = (past - first) * kBytes;
      board_->count(num_rows * row_bytes - own_bytes, (size() - 1) * own_bytes);
      return {};
    });
  }

  // Of few bytes the last rank to arrive adds up all: one round, and the others sleep once. Of more, each rank adds up
  // a part, in two rounds.
  Status all_reduce(const ComputeView<1>& values, const CollectiveSite& site) override {
    const int64_t count = values.extent(0), bytes = count * static_cast<int64_t>(dtype_size(values.dtype()));
    if (!fits(bytes)) return messages_->all_reduce(values, site);
    const ExchangeClock::Call clocked(mesh_.clock(), site);
    return visit_compute(values.dtype(), [&]<class T>() -> Status {
      T* const all = values.as<T>().data();
      return bytes < kLastAddsUp ? all_reduce_by_last(all, count, site) : all_reduce_by_parts(all, count, site);
    });
  }

  Status all_gather(View<const std::byte, 2> own, const RowPartition& partition, View<std::byte, 2> all,
                    const CollectiveSite& site) override {
    const int64_t row_bytes = all.extent(1);
    int64_t most_rows = 0;
    for (int member = 0; member < size(); member++) most_rows = std::max(most_rows, partition.count(member));
    if (!fits(most_rows * row_bytes)) return messages_->all_gather(own, partition, all, site);
    const ExchangeClock::Call clocked(mesh_.clock(), site);
    CHECK(own.extent(0) == partition.count(rank()) && all.extent(0) == partition.num_rows() &&
          own.extent(1) == row_bytes && own.is_contiguous() && all.is_contiguous());
    RETURN_IF_ERROR(begin());
    copy(own.data(), board_->own().data(), own.size());
    if (std::byte* const place = all.row(partition.begin(rank())); place != own.data())
      copy(own.data(), place, own.size());
    RETURN_IF_ERROR(meet(Call::kAllGather, all.size(), site));
    for (int step = 1; step < size(); step++) {
      const int peer = peer_at(step);
      copy(board_->of(peer).data(), all.row(partition.begin(peer)), partition.count(peer) * row_bytes);
    }
    board_->count((size() - 1) * own.size(), all.size() - own.size());
    return {};
  }

  // Each rank decides for what it sends, as nobody knows all sizes.
  Status all_to_all(std::span<const std::span<const std::byte>> sent, std::span<const std::span<std::byte>> received,
                    const CollectiveSite& site) override {
    const ExchangeClock::Call clocked(mesh_.clock(), site);
    CHECK(std::ssize(sent) == size() && std::ssize(received) == size());
    const auto own = static_cast<size_t>(rank());
    CHECK(sent[own].size() == received[own].size(), "{}: {} bytes to itself, {} from itself", site.operation,
          sent[own].size(), received[own].size());
    copy(sent[own].data(), received[own].data(), std::ssize(received[own]));
    RETURN_IF_ERROR(begin());
    const bool on_board = write_parts(sent);
    RETURN_IF_ERROR(meet(Call::kAllToAll, 0, site));
    ASSIGN_OR_RETURN(const bool complete, read_parts(received, site));
    if (on_board && complete) return {};
    if (on_board) {
      sent_left_.assign(sent.size(), {});
    } else {
      sent_left_.assign(sent.begin(), sent.end());
      sent_left_[own] = {};
    }
    return messages_->all_to_all(sent_left_, received_left_, site);
  }

  Status gather_columns(View<const float, 2> part, const RowPartition& columns, View<float, 2> all, int root,
                        const CollectiveSite& site) override {
    return messages_->gather_columns(part, columns, all, root, site);
  }

  Status broadcast(std::span<std::byte> data, int root, const CollectiveSite& site) override {
    return messages_->broadcast(data, root, site);
  }

  Status barrier(const CollectiveSite& site) override {
    const ExchangeClock::Call clocked(mesh_.clock(), site);
    RETURN_IF_ERROR(begin());
    return meet(Call::kBarrier, 0, site);
  }

 private:
  enum class Call : uint64_t { kReduceScatter, kAllGather, kAllReduce, kAllReduceByParts, kAllToAll, kBarrier };

  bool fits(int64_t bytes) const { return bytes <= static_cast<int64_t>(board_->slot_bytes()); }
  // The others in the order in which this rank turns to them: not everybody to the first one first.
  int peer_at(int step) const { return (rank() + step) % size(); }

  // The error: the mesh has failed.
  Status begin() const {
    if (std::optional<Error> failure = mesh_.failure()) return std::unexpected(std::move(*failure));
    board_->begin_round();
    return {};
  }

  // Arrives and waits for the others; the last to arrive calls `last_does` first. The error: one of them does not do
  // what this rank does.
  template <class LastDoes>
  Status meet(Call call, int64_t bytes, LastDoes last_does, const CollectiveSite& site) {
    if (board_->arrive(static_cast<uint64_t>(call) << kCallShift | static_cast<uint64_t>(bytes))) {
      if (board_->notes_agree()) last_does();
      board_->publish();
    } else {
      RETURN_IF_ERROR(mesh_.wait(*board_, site));
    }
    if (!board_->notes_agree()) return mesh_.fail(disagreement(site));
    return {};
  }

  Status meet(Call call, int64_t bytes, const CollectiveSite& site) {
    return meet(call, bytes, [] {}, site);
  }

  std::unexpected<Error> disagreement(const CollectiveSite& site) const {
    const uint64_t own = board_->note_of(rank());
    int other = 0;
    while (other + 1 < size() && board_->note_of(other) == own) other++;
    return make_error(ErrorCode::kCorrupt, "{}: member {} of the group is at its {}, this rank, member {}, at its {}",
                      site.text(), other, describe(board_->note_of(other)), rank(), describe(own));
  }

  template <class T>
  Status all_reduce_by_last(T* values, int64_t count, const CollectiveSite& site) {
    const int64_t bytes = count * static_cast<int64_t>(sizeof(T));
    RETURN_IF_ERROR(begin());
    T* const slot = values_in<T>(board_->own());
    copy(values, slot, bytes);
    const auto add_up = [&] {
      add_and_round(size(), [&](int member) { return values_in<T>(board_->of(member)); }, count, slot);
    };
    RETURN_IF_ERROR(meet(Call::kAllReduce, bytes, add_up, site));
    copy(board_->of(board_->last()).data(), values, bytes);
    const int64_t num_peers = board_->last() == rank() ? size() - 1 : 1;
    board_->count(num_peers * bytes, num_peers * bytes);
    return {};
  }

  template <class T>
  Status all_reduce_by_parts(T* values, int64_t count, const CollectiveSite& site) {
    constexpr auto kBytes = static_cast<int64_t>(sizeof(T));
    const RowPartition partition(count, size());
    const int64_t begin_of_own = partition.begin(rank()), own_count = partition.count(rank());
    RETURN_IF_ERROR(begin());
    copy(values, board_->own().data(), count * kBytes);
    RETURN_IF_ERROR(meet(Call::kAllReduceByParts, count * kBytes, site));
    const auto values_of = [&](int member) { return values_in<T>(board_->of(member)) + begin_of_own; };
    add_and_round(size(), values_of, own_count, values + begin_of_own);
    board_->count((count - own_count) * kBytes, (size() - 1) * own_count * kBytes);
    return all_gather(
        View<const std::byte, 2>(reinterpret_cast<const std::byte*>(values + begin_of_own), own_count, kBytes),
        partition, View<std::byte, 2>(reinterpret_cast<std::byte*>(values), count, kBytes), site);
  }

  // Of all_to_all(): whether everything is on the slot; else nothing is.
  bool write_parts(std::span<const std::span<const std::byte>> sent) {
    size_t offset = round_up(sent.size() * sizeof(Part), kCacheLine), total = offset;
    for (const auto& part : sent) total += round_up(part.size(), kCacheLine);
    const bool on_board = total <= board_->slot_bytes();
    std::byte* const slot = board_->own().data();
    Part* const parts = values_in<Part>(board_->own());
    for (int step = 1; step < size(); step++) {
      const auto peer = static_cast<size_t>(peer_at(step));
      parts[peer] = {.offset = on_board ? offset : 0, .size = sent[peer].size()};
      if (!on_board) continue;
      copy(sent[peer].data(), slot + offset, std::ssize(sent[peer]));
      board_->count(sent[peer].size(), 0);
      offset += round_up(sent[peer].size(), kCacheLine);
    }
    return on_board;
  }

  // Of all_to_all(): whether everything was read; else what is left to come is in received_left_.
  Result<bool> read_parts(std::span<const std::span<std::byte>> received, const CollectiveSite& site) {
    received_left_.assign(received.size(), {});
    bool complete = true;
    for (int step = 1; step < size(); step++) {
      const auto peer = static_cast<size_t>(peer_at(step));
      const std::span<const std::byte> slot = board_->of(static_cast<int>(peer));
      const Part part = values_in<Part>(slot)[rank()];
      const bool fits = part.offset == 0 || (part.offset <= slot.size() && part.size <= slot.size() - part.offset);
      if (part.size != received[peer].size() || !fits)
        return mesh_.fail(make_error(ErrorCode::kCorrupt,
                                     "{}: member {} of the group has {} bytes at {} for member {}, should be {}",
                                     site.text(), peer, part.size, part.offset, rank(), received[peer].size()));
      if (part.size == 0) continue;
      if (part.offset == 0) {
        received_left_[peer] = received[peer];
        complete = false;
        continue;
      }
      copy(slot.data() + part.offset, received[peer].data(), std::ssize(received[peer]));
      board_->count(0, part.size);
    }
    return complete;
  }

  Mesh& mesh_;
  std::unique_ptr<Board> board_;
  std::unique_ptr<Group> messages_;
  std::vector<std::span<const std::byte>> sent_left_;  // of all_to_all(), for messages
  std::vector<std::span<std::byte>> received_left_;
};

}  // namespace

Result<std::unique_ptr<Group>> make_group(Mesh& mesh, GroupOptions options) {
  // Between two ranks a message is one wake-up too, and goes without a common counter.
  const bool is_small = options.members.size() <= 2;
  std::unique_ptr<Board> board = is_small ? nullptr : mesh.make_board(options.members);
  ASSIGN_OR_RETURN(std::unique_ptr<Group> messages, make_message_group(mesh, std::move(options)));
  if (!board) return messages;
  return std::make_unique<BoardGroup>(mesh, std::move(board), std::move(messages));
}

}  // namespace cachalot
