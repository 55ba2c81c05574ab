#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "comm/group.h"
#include "comm/mesh.h"
#include "placement/expert_placement.h"
#include "tensor/dtype.h"
#include "tensor/view.h"

namespace cachalot {

// A rank's token rows on their way to experts. A row is bytes: the compute dtype, or int8 values with their scales
// behind.
struct DispatchRows {
  View<const std::byte, 2> rows;      // [num_rows, row_bytes]; zero rows are legal
  View<const int32_t, 2> expert_ids;  // [num_rows, top_k], of all experts
  int layer = 0;                      // of the placement's
};

// Rows that came to this rank's experts, as pairs sorted by slot: pair p is row pair_rows[p] and its result goes to row
// result_rows[p] of `results`, from where it travels without another copy; the rank's slot s of the layer has pairs
// [offsets[s], offsets[s + 1]).
struct ArrivedRows {
  View<const std::byte, 2> rows;       // [num_arrived, row_bytes]
  View<const int32_t, 1> pair_rows;    // [num_pairs]
  View<const int32_t, 1> result_rows;  // [num_pairs], each another one
  std::span<const int32_t> offsets;    // [slots of the rank + 1]
  ComputeView<2> results;              // [at least num_pairs, hidden]
};

// The experts' results for this rank's own rows: slot (row, k) is results row row_ids(row, k).
struct CombinedRows {
  ComputeView<2> results;          // [some, hidden]
  View<const int32_t, 2> row_ids;  // [num_rows, top_k]
};

// A message of a dispatch: the rows that one rank (their home) has for one other, in the order that they have at home.
//
//   0   DispatchHeader, and zeros up to
//   64  rows   num_rows x row_bytes, as the home made them
//       slots  num_rows x top_k uint16: for every expert of the row the slot of the layer that its home has chosen,
//              which also says on which rank it is
//
// Home and destination are named and a row brings all its slots, so that a message may go through a third rank that
// sees for whom else a row is. Who has another placement, or stands in another epoch, takes no row.
// The results come back as num_pairs rows of the compute dtype without a header, in the order of rows and of each row's
// slots; no pairs, no message.
struct DispatchHeader {
  static constexpr uint32_t kMagic = 0x58440000, kVersion = 2;

  uint32_t magic_and_version = kMagic | kVersion;
  uint16_t home = 0, destination = 0;  // ranks of the exchange
  uint32_t pass = 0;                   // of this exchange
  uint32_t num_rows = 0;
  uint32_t num_pairs = 0;  // of a row and an expert at the destination
  uint32_t row_bytes = 0;
  uint16_t top_k = 0;
  uint16_t more = 0;  // whether this home has rows for this destination in the next pass, too
  uint32_t placement_version = 0, placement_hash = 0;  // the hash: its lower half
  uint32_t epoch = 0;                                  // of the mesh
};
struct DispatchMessage {
  static constexpr int64_t kHeaderBytes = 64;
  int64_t num_rows = 0, row_bytes = 0, top_k = 0;

  static constexpr int64_t rows_offset() { return kHeaderBytes; }
  int64_t slots_offset() const { return rows_offset() + num_rows * row_bytes; }
  int64_t bytes() const { return slots_offset() + num_rows * top_k * static_cast<int64_t>(sizeof(uint16_t)); }
};
static_assert(sizeof(DispatchHeader) <= DispatchMessage::kHeaderBytes);

// What an exchange is for.
struct ExchangeShape {
  SharedPlacement placement;  // of as many ranks as take part
  int top_k = 0;
  int64_t hidden_size = 0;
  DType compute_dtype = DType::kBF16;
  int64_t row_bytes = 0;  // at most; a multiple of 4, so that a row's numbers stay aligned
  int64_t max_rows = 0;   // that a rank brings
  int64_t max_bytes = 0;  // that each buffer between ranks may have, if that holds a row for every peer; 0: no bound

  int num_ranks() const { return placement->shape().num_ranks; }
  int64_t result_bytes() const { return hidden_size * static_cast<int64_t>(dtype_size(compute_dtype)); }
};

// The sizes of a rank's buffers, from its shape alone. Buffers hold twice what evenly spread experts bring (and enough
// for small batches); where a routing brings more, the exchange takes more passes.
struct ExchangeLayout {
  explicit ExchangeLayout(const ExchangeShape& shape);

  ExchangeShape shape;
  int64_t rows_per_peer = 0, pairs_per_peer = 0;  // in a pass, from one rank (also itself) to another

  int64_t max_arrived_rows() const { return rows_per_peer * shape.num_ranks(); }
  int64_t max_arrived_pairs() const { return pairs_per_peer * shape.num_ranks(); }
  int64_t own_pairs() const { return shape.max_rows * shape.top_k; }

  // The buffers. One rank alone has only the last: its own rows' results.
  int64_t message_bytes() const;  // from message to message in the next two: whole cache lines
  int64_t sent_bytes() const { return messages_bytes(); }
  int64_t arrived_bytes() const { return messages_bytes(); }
  int64_t outgoing_rows() const { return shape.num_ranks() == 1 ? 0 : max_arrived_pairs(); }  // results for others
  int64_t results_bytes() const { return (outgoing_rows() + own_pairs()) * shape.result_bytes(); }
  int64_t bytes() const { return sent_bytes() + arrived_bytes() + results_bytes(); }

  std::string describe() const;

 private:
  int64_t messages_bytes() const { return shape.num_ranks() == 1 ? 0 : message_bytes() * shape.num_ranks(); }
};

// Sends each token row once to every rank that is to compute any of its experts, and the experts' results back. Over
// some ranks of a mesh, whose placement says where experts are; of an expert's copies the row's home chooses one. One
// exchange a MoE layer: dispatch(), then next() and the experts until it gives false, then combine(). Other work may be
// done between the calls while messages fly. All ranks make the same sequence of exchanges. Used by one thread; views
// stay valid until the next dispatch().
//
// An exchange runs in passes, as many as its fixed buffers need (ExchangeLayout), agreed upon pair by pair: in a
// pass, a rank sends a message to whom it has not told "no more", and expects one from who has not told it so. In every
// pass, what goes from a rank to another is, in this order, the rows (also none: that, too, the other has to know) and
// the results for rows that came from there, if there were any. So each side knows what comes next without asking.
//
// A row is copied on its way into a message and, where it arrives, closer to the others. Results are not copied:
// experts write them as they travel, and they arrive where combine() gives them out. A rank's own rows for its own
// experts take part like the others', without a message. One rank alone reads and writes in place.
class ExpertExchange {
 public:
  struct Counters {
    uint64_t rows_brought = 0;                      // into dispatches
    uint64_t rows_sent = 0, rows_received = 0;      // by dispatches, to and from other ranks
    uint64_t expert_rows = 0;                       // given out, each as often as it meets an expert of this rank,
    std::array<uint64_t, 128> layer_expert_rows{};  // by layer, the last with what is beyond it
    uint64_t num_exchanges = 0, num_passes = 0;
  };

  // members: ranks of the mesh, as many as the placement's; one that takes no part in the epoch has no slots. nodes: of
  // each member; empty: all on one. Borrows the mesh. The error: memory.
  static Result<std::unique_ptr<ExpertExchange>> create(Mesh& mesh, std::vector<int> members,
                                                        const ExchangeLayout& layout, std::span<const int> nodes = {});
  ~ExpertExchange();  // in the middle of an exchange, this ends the mesh

  // What this rank's slots of a layer hold.
  std::span<const int32_t> own_slots(int layer) const { return placement().slots(layer, rank_); }
  const ExpertPlacement& placement() const { return *layout_.shape.placement; }
  // From the next exchange on, which is the same on all ranks: another placement within the slots of the first, and how
  // this rank chooses among its copies.
  void set_placement(SharedPlacement placement, CopyChoice choice);
  CopyChoice choice_of(const ExpertPlacement& placement) const { return {placement, rank_, nodes_}; }  // any thread
  // From now on it is counted there, [layers, experts] of the placement, which rows of this rank choose; for other
  // threads, too, to read. Borrowed.
  void count_choices(std::span<uint64_t> counts);
  Status dispatch(const DispatchRows& rows, const CollectiveSite& site);
  // Moves messages on, without waiting: for long work between the calls.
  Status progress();
  // The next portion of rows for this rank's experts; more than one where a buffer is too small for all. False: no
  // more.
  Result<bool> next(ArrivedRows& arrived);
  Result<CombinedRows> combine();

  const ExchangeLayout& layout() const { return layout_; }
  const Counters& counters() const { return counters_; }
  void count_on_from(const Counters& before) { counters_ = before; }
  int rank() const { return rank_; }  // among the members

 private:
  enum class State { kIdle, kStarted, kGivenOut, kThrough };  // of the exchange; the middle two, of its pass
  // An expert of some rank's row that is computed here: the rank's slot, row of the portion, row of results_.
  struct Pair {
    int32_t slot, row, result_row;
  };
  // The exchange with one rank, this one included.
  struct Peer {
    size_t next = 0, end = 0;                   // of peer_rows_: rows that are yet to go there
    bool more_to = false, more_from = false;    // messages in the next pass
    int64_t first_result = 0, num_results = 0;  // for this pass's rows, in the combined results
    int64_t last_row = -1;                      // that was seen to go there
  };
  // The rows of one message: peer_rows_[begin] to [end].
  struct Selection {
    size_t begin = 0, end = 0;
  };

  ExpertExchange(Mesh& mesh, std::vector<int> members, int rank, const ExchangeLayout& layout,
                 std::span<const int> nodes);
  int num_ranks() const { return static_cast<int>(members_.size()); }
  // All in the order in which this rank turns to them: not everybody to the first one first.
  int peer_at(int step) const { return (rank_ + step) % num_ranks(); }
  void choose_copies();
  void assign_rows();

  // A pass.
  void start_pass();
  Selection select_rows(int destination);
  std::span<const std::byte> write_message(int destination, const Selection& rows);
  bool wants_another_pass() const;
  Status wait();
  Status take_rows();
  void take_own_rows();
  Status take_message(int home);
  // The pairs of the row that arrives, with these slots of the layer, that are computed here; their results go to
  // result_row and on.
  void add_pairs(const uint16_t* slots, int64_t& result_row);
  void sort_pairs();
  void start_result_receives();
  void start_result_sends();

  // Operations: the first num_ranks() entries are rows, the others results; those that are not under way are done.
  SendOp& row_send(int peer) { return sends_[peer]; }
  SendOp& result_send(int peer) { return sends_[num_ranks() + peer]; }
  ReceiveOp& row_receive(int peer) { return receives_[peer]; }
  ReceiveOp& result_receive(int peer) { return receives_[num_ranks() + peer]; }
  std::byte* message_to(int peer) const { return sent_.data() + peer * layout_.message_bytes(); }
  std::byte* message_from(int peer) const { return arrived_.data() + peer * layout_.message_bytes(); }
  std::byte* result(int64_t row) const { return results_.data() + row * layout_.shape.result_bytes(); }
  std::byte* arrived_row() const {  // where the next one goes
    return arrived_.data() + DispatchMessage::rows_offset() + num_arrived_ * own_.rows.extent(1);
  }
  std::unexpected<Error> fail(int peer, std::string_view what) const;

  Mesh& mesh_;
  std::vector<int> members_;
  int rank_;
  std::vector<int> nodes_;  // of each member; empty: all on one
  ExchangeLayout layout_;
  CopyChoice choice_;
  Counters counters_;
  std::span<uint64_t> choices_;  // empty: nobody counts

  // This exchange.
  State state_ = State::kIdle;
  CollectiveSite site_;
  DispatchRows own_;
  std::vector<Peer> peers_;
  int first_slot_ = 0, num_slots_ = 0;     // of the layer, of this rank
  std::vector<uint16_t> holders_, slots_;  // [own rows, top_k]: the rank that computes an expert, and its slot
  std::vector<int32_t> peer_rows_;         // own rows by destination
  std::vector<int32_t> row_ids_;           // [own rows, top_k] of the combined results
  int64_t num_combined_ = 0;               // rows of the combined results that have an owner
  uint32_t pass_ = 0;

  // This pass.
  Selection own_rows_;  // that stay here
  int64_t num_arrived_ = 0, num_outgoing_ = 0;
  std::vector<Pair> pairs_;
  std::vector<int64_t> first_outgoing_;  // [num_ranks + 1]: rank r's are rows [of r, of r + 1) of results_
  std::vector<int32_t> pair_rows_, result_rows_, offsets_, cursor_;  // given out

  Buffer sent_, arrived_;  // a message a rank
  Buffer results_;         // [outgoing_rows + own_pairs, hidden]: for others, then combined
  std::vector<SendOp> sends_;
  std::vector<ReceiveOp> receives_;
};

}  // namespace cachalot
