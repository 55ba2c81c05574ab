#include <algorithm>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "comm/group.h"
#include "comm/mesh.h"
#include "device/device.h"
#include "tensor/view.h"

namespace cachalot {
namespace {

constexpr int64_t kLeastPart = 16 << 10;  // bytes of all_reduce() that are worth a rank of their own

// How many ranks add up a part each in all_reduce(). Everybody sends each of them a message and gets one back, which
// costs microseconds at both ends whatever its size, and each of them sleeps twice in a call, the others once: a few
// values are added up by one rank.
int num_owners(int64_t bytes, int num_ranks) {
  return static_cast<int>(std::clamp<int64_t>(bytes / kLeastPart, 1, num_ranks));
}

// Whether both of two ranks add up all: as many bytes as two halves there and back, in one hop instead of two.
bool adds_up_all(int64_t bytes, int num_ranks) {
  return num_ranks == 2 && bytes < 2 * kLeastPart;
}

// Of what one rank adds up at a time.
int64_t max_part_bytes(const GroupOptions& options) {
  const auto num_ranks = static_cast<int64_t>(options.members.size());
  // Of fewer bytes a part may be larger, as fewer ranks share them. A value is whole, and has at most four bytes.
  const int64_t part = options.max_summed_bytes == 0 ? 0 : options.max_summed_bytes / num_ranks + 4;
  return std::max({options.max_reduced_bytes, part, std::min(options.max_summed_bytes, 2 * kLeastPart)});
}

template <class T>
std::span<const std::byte> bytes_of(const T* first, int64_t count) {
  return {reinterpret_cast<const std::byte*>(first), static_cast<size_t>(count) * sizeof(T)};
}
template <class T>
std::span<std::byte> writable_bytes_of(T* first, int64_t count) {
  return {reinterpret_cast<std::byte*>(first), static_cast<size_t>(count) * sizeof(T)};
}

// Collectives over some ranks of a mesh, each in one hop (all_reduce() and barrier() in two): every message goes
// straight from its sender to where it is wanted, out of the caller's rows and, except for sums, into the caller's
// rows. Where there is nothing to send there is no message: of one token's row, one rank adds up all and tells all (or
// each of two ranks adds up all). A group of one rank moves nothing.
class MeshGroup : public Group {
  // In front of its uses, which clang wants of a type that is deduced.
  std::byte* staged(int from, int64_t part_bytes) const {
    return staging_.data() + (from < rank_ ? from : from - 1) * part_bytes;
  }

  // Gives any rank's values of this rank's part: `own` is what it has itself.
  template <class T>
  auto part_values(const T* own, int64_t part_bytes) const {
    return [=, this](int rank) { return rank == rank_ ? own : reinterpret_cast<const T*>(staged(rank, part_bytes)); };
  }

 public:
  MeshGroup(Mesh& mesh, const GroupOptions& options, int rank, Buffer staging)
      : mesh_(mesh),
        members_(options.members),
        rank_(rank),
        max_part_bytes_(max_part_bytes(options)),
        staging_(std::move(staging)) {
    const size_t rows = static_cast<size_t>(options.max_gathered_rows), others = members_.size() - 1;
    sends_.reserve(std::max(rows, others));
    receives_.reserve(std::max<size_t>(rows, 1) * others);
  }
  // After a call that an error cut short, this ends the mesh.
  ~MeshGroup() override {
    if (!sends_.empty() || !receives_.empty()) mesh_.abandon();
  }

  int rank() const override { return rank_; }
  int size() const override { return static_cast<int>(members_.size()); }

  Status reduce_scatter(const ComputeView<2>& partial, const RowPartition& partition, View<float, 2> own,
                        const CollectiveSite& site) override {
    const ExchangeClock::Call call(mesh_.clock(), site);
    const int64_t features = own.extent(1);
    CHECK(partial.extent(0) == partition.num_rows() && own.extent(0) == partition.count(rank_) &&
          partial.extent(1) == features);
    return visit_compute(partial.dtype(), [&]<class T>() -> Status {
      const View<T, 2> rows = partial.as<T>();
      CHECK(rows.is_contiguous());
      const int64_t part_bytes = own.size() * static_cast<int64_t>(sizeof(T));
      RETURN_IF_ERROR(exchange_parts(
          part_bytes,
          [&](int peer) { return bytes_of(rows.row(partition.begin(peer)), partition.count(peer) * features); }, site));
      for (int64_t row = 0; row < own.extent(0); row++) {
        const auto part_of = part_values(rows.row(partition.begin(rank_)), part_bytes);
        add_in_rank_order<T>(size(), [&](int rank) { return part_of(rank) + row * features; }, features, own.row(row));
      }
      return {};
    });
  }

  Status all_reduce(const ComputeView<1>& values, const CollectiveSite& site) override {
    const ExchangeClock::Call call(mesh_.clock(), site);
    if (size() == 1) return {};
    return visit_compute(values.dtype(), [&]<class T>() -> Status {
      constexpr auto kBytes = static_cast<int64_t>(sizeof(T));
      T* const all = values.as<T>().data();
      const int64_t count = values.extent(0);
      if (adds_up_all(count * kBytes, size()))
        return reduce_part(all, count, [&](int /*peer*/) { return bytes_of(all, count); }, site);
      const RowPartition partition(count, num_owners(count * kBytes, size()));
      T* const own = all + partition.begin(rank_);
      RETURN_IF_ERROR(reduce_part(
          own, partition.count(rank_),
          [&](int peer) { return bytes_of(all + partition.begin(peer), partition.count(peer)); }, site));
      return all_gather(
          View<const std::byte, 2>(reinterpret_cast<const std::byte*>(own), partition.count(rank_), kBytes), partition,
          View<std::byte, 2>(reinterpret_cast<std::byte*>(all), count, kBytes), site);
    });
  }

  Status all_gather(View<const std::byte, 2> own, const RowPartition& partition, View<std::byte, 2> all,
                    const CollectiveSite& site) override {
    const ExchangeClock::Call call(mesh_.clock(), site);
    CHECK(own.extent(0) == partition.count(rank_) && all.extent(0) == partition.num_rows() &&
          own.extent(1) == all.extent(1) && own.is_contiguous() && all.is_contiguous());
    for (int step = 1; step < size(); step++) {
      const int peer = peer_at(step);
      send(peer, bytes_of(own.data(), own.size()));
      receive(peer, writable_bytes_of(all.row(partition.begin(peer)), partition.count(peer) * all.extent(1)));
    }
    std::byte* const place = all.row(partition.begin(rank_));
    if (place != own.data() && !own.empty()) std::memcpy(place, own.data(), static_cast<size_t>(own.size()));
    return exchange(site);
  }

  Status all_to_all(std::span<const std::span<const std::byte>> sent, std::span<const std::span<std::byte>> received,
                    const CollectiveSite& site) override {
    const ExchangeClock::Call call(mesh_.clock(), site);
    CHECK(std::ssize(sent) == size() && std::ssize(received) == size());
    for (int step = 0; step < size(); step++) {
      const int peer = peer_at(step);
      const auto& out = sent[peer];
      const auto& in = received[peer];
      if (peer == rank_) {
        CHECK(out.size() == in.size(), "{}: {} bytes to itself, {} from itself", site.operation, out.size(), in.size());
        if (!out.empty()) std::memmove(in.data(), out.data(), out.size());
      } else {
        send(peer, out);
        receive(peer, in);
      }
    }
    return exchange(site);
  }

  // A row of a part is a message: it arrives in its place, and is long for the vocabularies of real models.
  Status gather_columns(View<const float, 2> part, const RowPartition& columns, View<float, 2> all, int root,
                        const CollectiveSite& site) override {
    const ExchangeClock::Call call(mesh_.clock(), site);
    CHECK(part.extent(1) == columns.count(rank_));
    CHECK(rank_ != root || (all.extent(0) == part.extent(0) && all.extent(1) == columns.num_rows()));
    for (int64_t row = 0; row < part.extent(0); row++) {
      if (rank_ != root) {
        send(root, bytes_of(part.row(row), part.extent(1)));
        continue;
      }
      for (int peer = 0; peer < size(); peer++) {
        float* const place = all.row(row) + columns.begin(peer);
        if (peer == rank_)
          std::copy_n(part.row(row), part.extent(1), place);
        else
          receive(peer, writable_bytes_of(place, columns.count(peer)));
      }
    }
    return exchange(site);
  }

  Status broadcast(std::span<std::byte> data, int root, const CollectiveSite& site) override {
    const ExchangeClock::Call call(mesh_.clock(), site);
    if (rank_ != root) {
      receive(root, data);
    } else {
      for (int peer = 0; peer < size(); peer++)
        if (peer != rank_) send(peer, data);
    }
    return exchange(site);
  }

  // Everybody tells the first rank, which then tells everybody.
  Status barrier(const CollectiveSite& site) override {
    const ExchangeClock::Call call(mesh_.clock(), site);
    std::byte sign{1};  // a message needs a byte
    if (rank_ != 0)
      send(0, {&sign, 1});
    else
      for (int peer = 1; peer < size(); peer++) receive(peer, {&sign, 1});
    RETURN_IF_ERROR(exchange(site));
    return broadcast({&sign, 1}, 0, site);
  }

 private:
  // The others in the order in which this rank turns to them: not everybody to the first one first.
  int peer_at(int step) const { return (rank_ + step) % size(); }

  // One call's messages: send() and receive() note them, exchange() moves them all. A message's size is known to both
  // sides; one of another size is the peer's error.
  void send(int to, std::span<const std::byte> data) {
    if (data.empty()) return;
    sends_.push_back({.peer = members_[to], .data = data});
  }

  void receive(int from, std::span<std::byte> buffer) {
    if (buffer.empty()) return;
    receives_.push_back({.peer = members_[from], .buffer = buffer});
  }

  Status exchange(const CollectiveSite& site) {
    if (std::optional<Error> failure = mesh_.failure()) return std::unexpected(std::move(*failure));
    for (ReceiveOp& op : receives_) mesh_.start(op);
    for (SendOp& op : sends_) mesh_.start(op);
    // After an error the lists stay as they are: the mesh may still know the operations.
    RETURN_IF_ERROR(mesh_.wait(sends_, receives_, site));
    for (const ReceiveOp& op : receives_) {
      if (op.size == op.buffer.size()) continue;
      return mesh_.fail(make_error(ErrorCode::kCorrupt, "{}: {} sent {} bytes, should be {}", site.text(),
                                   mesh_.rank_name(op.peer), op.size, op.buffer.size()));
    }
    sends_.clear();
    receives_.clear();
    return {};
  }

  // Everybody's share of this rank's part to staging.
  template <class PartOf>
  Status exchange_parts(int64_t part_bytes, PartOf part_of, const CollectiveSite& site) {
    CHECK(part_bytes <= max_part_bytes_, "{}: a part of {} bytes, staging for {}", site.operation, part_bytes,
          max_part_bytes_);
    for (int step = 1; step < size(); step++) {
      const int peer = peer_at(step);
      send(peer, part_of(peer));
      receive(peer, {staged(peer, part_bytes), static_cast<size_t>(part_bytes)});
    }
    return exchange(site);
  }

  // own [count] = the rounded sums of this rank's part.
  template <class T, class PartOf>
  Status reduce_part(T* own, int64_t count, PartOf part_of, const CollectiveSite& site) {
    const int64_t part_bytes = count * static_cast<int64_t>(sizeof(T));
    RETURN_IF_ERROR(exchange_parts(part_bytes, part_of, site));
    add_and_round(size(), part_values<T>(own, part_bytes), count, own);
    return {};
  }

  Mesh& mesh_;
  std::vector<int> members_;
  int rank_;  // in the group
  int64_t max_part_bytes_;
  Buffer staging_;
  std::vector<SendOp> sends_;
  std::vector<ReceiveOp> receives_;
};

}  // namespace

Result<std::unique_ptr<Group>> make_message_group(Mesh& mesh, GroupOptions options) {
  const auto self = std::ranges::find(options.members, mesh.rank());
  CHECK(self != options.members.end(), "rank {} is not a member of its group", mesh.rank());
  const auto rank = static_cast<int>(self - options.members.begin());
  // The others' shares of this rank's part.
  const int64_t staging_bytes = max_part_bytes(options) * (std::ssize(options.members) - 1);
  ASSIGN_OR_RETURN(Buffer staging, Device::allocate(static_cast<size_t>(staging_bytes)));
  return std::make_unique<MeshGroup>(mesh, options, rank, std::move(staging));
}

}  // namespace cachalot
