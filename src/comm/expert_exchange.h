#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "base/error.h"
#include "comm/group.h"
#include "tensor/dtype.h"
#include "tensor/view.h"

namespace cachalot {

// A rank's token rows on their way to experts. A row is bytes: the compute dtype, or int8 values with their scales
// behind.
struct DispatchRows {
  View<const std::byte, 2> rows;      // [num_rows, row_bytes]; zero rows are legal
  View<const int32_t, 2> expert_ids;  // [num_rows, top_k], of all experts
};

// Rows that came to this rank's experts, as pairs sorted by expert: pair p is row pair_rows[p] and its result goes to
// row result_rows[p] of `results`, from where it travels without another copy; local expert e has pairs [offsets[e],
// offsets[e + 1]).
struct ArrivedRows {
  View<const std::byte, 2> rows;       // [num_arrived, row_bytes]
  View<const int32_t, 1> pair_rows;    // [num_pairs]
  View<const int32_t, 1> result_rows;  // [num_pairs], each another one
  std::span<const int32_t> offsets;    // [num_local_experts + 1]
  ComputeView<2> results;              // [at least num_pairs, hidden]
};

// The experts' results for this rank's own rows: slot (row, k) is results row row_ids(row, k).
struct CombinedRows {
  ComputeView<2> results;          // [some, hidden]
  View<const int32_t, 2> row_ids;  // [num_rows, top_k]
};

// Sends each token row once to every rank that holds any of its experts, and the experts' results back. One exchange a
// MoE layer: dispatch(), then next() and the experts until it gives false, then combine(). Other work may be done
// between the calls while messages fly. All ranks of the expert-parallel group make the same sequence of exchanges.
// Used by one thread; views stay valid until the next dispatch().
class ExpertExchange {
 public:
  virtual ~ExpertExchange() = default;
  virtual int first_local_expert() const = 0;
  virtual int num_local_experts() const = 0;

  virtual Status dispatch(const DispatchRows& rows, const CollectiveSite& site) = 0;
  // Moves messages on, without waiting: for long work between the calls.
  virtual Status progress() = 0;
  // The next portion of rows for this rank's experts; more than one where a buffer is too small for all. False: no
  // more.
  virtual Result<bool> next(ArrivedRows& arrived) = 0;
  virtual Result<CombinedRows> combine() = 0;
};

// A message of a dispatch: the rows that one rank (their home) has for one other, in the order that they have at home.
//
//   0   DispatchHeader, and zeros up to
//   64  rows   num_rows x row_bytes, as the home made them
//       ids    num_rows x top_k uint16: every expert of the row, whoever holds it
//
// Home and destination are named and a row brings all its ids, so that a message may go through a third rank that sees
// for whom else a row is. The results come back as num_pairs rows of the compute dtype without a header, in the order
// of rows and of each row's slots; no pairs, no message.
struct DispatchHeader {
  static constexpr uint32_t kMagic = 0x58440000, kVersion = 1;

  uint32_t magic_and_version = kMagic | kVersion;
  uint16_t home = 0, destination = 0;  // ranks of the exchange
  uint32_t pass = 0;                   // of this exchange
  uint32_t num_rows = 0;
  uint32_t num_pairs = 0;  // of a row and an expert at the destination
  uint32_t row_bytes = 0;
  uint16_t top_k = 0;
  uint16_t more = 0;  // whether this home has rows for this destination in the next pass, too
};
struct DispatchMessage {
  static constexpr int64_t kHeaderBytes = 64;
  int64_t num_rows = 0, row_bytes = 0, top_k = 0;

  static constexpr int64_t rows_offset() { return kHeaderBytes; }
  int64_t ids_offset() const { return rows_offset() + num_rows * row_bytes; }
  int64_t bytes() const { return ids_offset() + num_rows * top_k * static_cast<int64_t>(sizeof(uint16_t)); }
};
static_assert(sizeof(DispatchHeader) <= DispatchMessage::kHeaderBytes);

// What an exchange is for.
struct ExchangeShape {
  int num_ranks = 1, num_experts = 0, top_k = 0;
  int64_t hidden_size = 0;
  DType compute_dtype = DType::kBF16;
  int64_t row_bytes = 0;  // at most; a multiple of 4, so that a row's numbers stay aligned
  int64_t max_rows = 0;   // that a rank brings
  int64_t max_bytes = 0;  // that each buffer between ranks may have, if that holds a row for every peer; 0: no bound

  int num_local_experts() const { return num_experts / num_ranks; }
  int64_t result_bytes() const { return hidden_size * static_cast<int64_t>(dtype_size(compute_dtype)); }
};

// The sizes of a rank's buffers, from its shape alone. Buffers hold twice what evenly spread experts bring (and enough
// for small batches); where a routing brings more, the exchange takes more passes.
struct ExchangeLayout {
  explicit ExchangeLayout(const ExchangeShape& shape);

  ExchangeShape shape;
  int64_t rows_per_peer = 0, pairs_per_peer = 0;  // in a pass, from one rank (also itself) to another

  int64_t max_arrived_rows() const { return rows_per_peer * shape.num_ranks; }
  int64_t max_arrived_pairs() const { return pairs_per_peer * shape.num_ranks; }
  int64_t own_pairs() const { return shape.max_rows * shape.top_k; }

  // The buffers. One rank alone has only the last: its own rows' results.
  int64_t message_bytes() const;  // from message to message in the next two: whole cache lines
  int64_t sent_bytes() const { return messages_bytes(); }
  int64_t arrived_bytes() const { return messages_bytes(); }
  int64_t outgoing_rows() const { return shape.num_ranks == 1 ? 0 : max_arrived_pairs(); }  // results for others
  int64_t results_bytes() const { return (outgoing_rows() + own_pairs()) * shape.result_bytes(); }
  int64_t bytes() const { return sent_bytes() + arrived_bytes() + results_bytes(); }

  std::string describe() const;

 private:
  int64_t messages_bytes() const { return shape.num_ranks == 1 ? 0 : message_bytes() * shape.num_ranks; }
};

}  // namespace cachalot
