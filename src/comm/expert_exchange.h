#pragma once

#include <cstdint>
#include <span>

#include "base/error.h"
#include "comm/group.h"
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

}  // namespace cachalot
