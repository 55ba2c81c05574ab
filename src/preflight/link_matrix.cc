#include "preflight/link_matrix.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <memory>
#include <numeric>

#include "base/math.h"
#include "comm/group.h"
#include "config/json.h"

namespace cachalot {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kWarmup = 10, kPings = 100;
constexpr size_t kPieceBytes = size_t{1} << 20;
constexpr int kMostPieces = 256;
constexpr double kStreamSeconds = 0.1;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Both sides of a pair make the same calls, one as the sender.
class Pair {
 public:
  Pair(Mesh& mesh, int peer) : mesh_(mesh), peer_(peer), bytes_(kPieceBytes) {}

  // Gives the figure on the sender's side.
  Result<LinkFigure> measure(bool sends) {
    LinkFigure figure;
    ASSIGN_OR_RETURN(figure.microseconds, latency(sends));
    // A first look tells how many pieces take the time that is to be measured.
    ASSIGN_OR_RETURN(double seconds, stream(sends, 1));
    int32_t num_pieces = std::clamp(static_cast<int>(kStreamSeconds / std::max(seconds, 1e-6)), 1, kMostPieces);
    RETURN_IF_ERROR(tell(sends, num_pieces));
    ASSIGN_OR_RETURN(seconds, stream(sends, num_pieces));
    figure.bytes_per_second = num_pieces * static_cast<double>(kPieceBytes) / seconds;
    return figure;
  }

 private:
  static constexpr CollectiveSite kSite{.operation = "link check"};

  Status send(std::span<const std::byte> data) {
    std::array<SendOp, 1> ops{SendOp{.peer = peer_, .data = data}};
    mesh_.start(ops[0]);
    return mesh_.wait(ops, {}, kSite);
  }
  Status receive(std::span<std::byte> buffer) {
    std::array<ReceiveOp, 1> ops{ReceiveOp{.peer = peer_, .buffer = buffer}};
    mesh_.start(ops[0]);
    return mesh_.wait({}, ops, kSite);
  }
  Status tell(bool sends, int32_t& value) {
    return sends ? send(std::as_bytes(std::span(&value, 1))) : receive(std::as_writable_bytes(std::span(&value, 1)));
  }

  // Half of what a message and its answer take, the median of some.
  Result<double> latency(bool sends) {
    std::vector<double> microseconds;
    const std::span<std::byte> message = std::span(bytes_).first(8);
    for (int ping = 0; ping < kWarmup + kPings; ping++) {
      const Clock::time_point start = Clock::now();
      RETURN_IF_ERROR(sends ? send(message) : receive(message));
      RETURN_IF_ERROR(sends ? receive(message) : send(message));
      if (ping >= kWarmup) microseconds.push_back(seconds_since(start) * 1e6 / 2);
    }
    return median(std::move(microseconds));
  }

  // Seconds of so many pieces, one behind the other, until the other side has all.
  Result<double> stream(bool sends, int num_pieces) {
    const std::span<std::byte> word = std::span(bytes_).first(1);
    const Clock::time_point start = Clock::now();
    if (sends) {
      std::vector<SendOp> ops(static_cast<size_t>(num_pieces), SendOp{.peer = peer_, .data = bytes_});
      for (SendOp& op : ops) mesh_.start(op);
      RETURN_IF_ERROR(mesh_.wait(ops, {}, kSite));
      RETURN_IF_ERROR(receive(word));
    } else {
      for (int piece = 0; piece < num_pieces; piece++) RETURN_IF_ERROR(receive(bytes_));
      RETURN_IF_ERROR(send(word));
    }
    return seconds_since(start);
  }

  Mesh& mesh_;
  int peer_;
  std::vector<std::byte> bytes_;
};

}  // namespace

// The circle method: rank 0 (a bye where the number is odd) sits still, the others move on by one seat a round.
int partner_in_round(int rank, int size, int round) {
  const int seats = size + size % 2, circle = seats - 1;
  const auto seat_of = [&](int other) { return (other + round) % circle; };
  if (rank == seats - 1) {
    for (int other = 0; other < circle; other++)
      if (seat_of(other) == 0) return other;
  }
  const int seat = seat_of(rank), opposite = seat == 0 ? -1 : circle - seat;
  if (opposite < 0) return seats - 1 < size ? seats - 1 : -1;
  return ((opposite - round) % circle + circle) % circle;
}

Result<LinkMatrix> measure_links(Mesh& mesh) {
  const int size = mesh.size(), rank = mesh.rank();
  LinkMatrix matrix{.size = size, .figures = std::vector<LinkFigure>(static_cast<size_t>(size * size))};
  std::vector<int> members(static_cast<size_t>(size));
  std::iota(members.begin(), members.end(), 0);
  ASSIGN_OR_RETURN(const std::unique_ptr<Group> group, make_message_group(mesh, {.members = std::move(members)}));
  const int num_rounds = size + size % 2 - 1;
  for (int round = 0; round < num_rounds; round++) {
    RETURN_IF_ERROR(group->barrier({.operation = "link check"}));
    const int peer = partner_in_round(rank, size, round);
    if (peer < 0) continue;
    Pair pair(mesh, peer);
    for (const bool first : {true, false}) {
      const bool sends = (rank < peer) == first;
      ASSIGN_OR_RETURN(const LinkFigure figure, pair.measure(sends));
      if (sends) matrix.at(rank, peer) = figure;
    }
  }
  const auto row_bytes = static_cast<int64_t>(static_cast<size_t>(size) * sizeof(LinkFigure));
  auto* const rows = reinterpret_cast<std::byte*>(matrix.figures.data());
  RETURN_IF_ERROR(group->all_gather(View<const std::byte, 2>(rows + rank * row_bytes, 1, row_bytes),
                                    RowPartition(size, size), View<std::byte, 2>(rows, size, row_bytes),
                                    {.operation = "link check"}));
  return matrix;
}

Result<LinkMatrix> parse_link_matrix(const std::string& text, int size) {
  ASSIGN_OR_RETURN(LinkMatrix matrix, from_json_line<LinkMatrix>(text));
  if (matrix.size != size || std::ssize(matrix.figures) != int64_t{size} * size)
    return make_error(ErrorCode::kCorrupt, "{} figures of links between {} nodes, where {} between {} were expected",
                      matrix.figures.size(), matrix.size, int64_t{size} * size, size);
  return matrix;
}

}  // namespace cachalot
