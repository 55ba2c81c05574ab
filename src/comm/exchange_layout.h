#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "tensor/dtype.h"

namespace cachalot {

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
