#include "comm/expert_exchange.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "base/error.h"
#include "base/math.h"

namespace cachalot {

namespace {

constexpr int64_t kHeadroom = 2;     // over evenly spread experts
constexpr int64_t kLeastPairs = 64;  // from one rank to another: decode batches take one pass
constexpr int64_t kLine = 64;

}  // namespace

ExchangeLayout::ExchangeLayout(const ExchangeShape& exchange) : shape(exchange) {
  CHECK(shape.num_experts % shape.num_ranks == 0, "{} experts over {} ranks", shape.num_experts, shape.num_ranks);
  CHECK(shape.num_experts <= std::numeric_limits<uint16_t>::max() + 1, "{} experts", shape.num_experts);
  CHECK(shape.row_bytes % 4 == 0, "rows of {} bytes", shape.row_bytes);
  if (shape.num_ranks == 1) {
    rows_per_peer = shape.max_rows;
    pairs_per_peer = own_pairs();
    return;
  }
  const int pairs_of_row = std::min(shape.top_k, shape.num_local_experts());
  const int64_t evenly = ceil_div(own_pairs(), shape.num_ranks);
  pairs_per_peer = std::min(std::max(kHeadroom * evenly, kLeastPairs), shape.max_rows * pairs_of_row);
  rows_per_peer = shape.max_rows;
  if (shape.max_bytes > 0) {
    const int64_t bytes_per_peer = shape.max_bytes / shape.num_ranks;
    pairs_per_peer = std::min(pairs_per_peer, bytes_per_peer / shape.result_bytes());
    const DispatchMessage one{.num_rows = 1, .row_bytes = shape.row_bytes, .top_k = shape.top_k};
    const int64_t bytes_of_row = one.bytes() - DispatchMessage::kHeaderBytes;
    rows_per_peer = (bytes_per_peer / kLine * kLine - DispatchMessage::kHeaderBytes) / bytes_of_row;
  }
  pairs_per_peer =
      std::max<int64_t>(pairs_per_peer, shape.top_k);  // a row always fits, even one that repeats an expert
  rows_per_peer = std::clamp<int64_t>(rows_per_peer, 1, std::min(shape.max_rows, pairs_per_peer));
}

int64_t ExchangeLayout::message_bytes() const {
  const DispatchMessage largest{.num_rows = rows_per_peer, .row_bytes = shape.row_bytes, .top_k = shape.top_k};
  return round_up(largest.bytes(), kLine);
}

std::string ExchangeLayout::describe() const {
  constexpr double kMiB = 1 << 20;
  return fmt::format(
      "expert exchange of {} ranks with {} experts each: at most {} rows and {} pairs from rank to rank in a pass, "
      "{:.1f} MiB for rows to send, {:.1f} MiB for rows that arrive, {:.1f} MiB for results",
      shape.num_ranks, shape.num_local_experts(), rows_per_peer, pairs_per_peer,
      static_cast<double>(sent_bytes()) / kMiB, static_cast<double>(arrived_bytes()) / kMiB,
      static_cast<double>(results_bytes()) / kMiB);
}

}  // namespace cachalot
