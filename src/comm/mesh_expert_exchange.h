#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "comm/expert_exchange.h"
#include "comm/mesh.h"
#include "tensor/view.h"

namespace cachalot {

// The expert exchange over some ranks of a mesh; rank r of it holds experts [r * local, (r + 1) * local).
//
// An exchange runs in passes, as many as its fixed buffers need (expert_exchange.h), agreed upon pair by pair: in a
// pass, a rank sends a message to whom it has not told "no more", and expects one from who has not told it so. In every
// pass, what goes from a rank to another is, in this order, the rows (also none: that, too, the other has to know) and
// the results for rows that came from there, if there were any. So each side knows what comes next without asking.
//
// A row is copied on its way into a message and, where it arrives, closer to the others. Results are not copied:
// experts write them as they travel, and they arrive where combine() gives them out. A rank's own rows for its own
// experts take part like the others', without a message. One rank alone reads and writes in place.
class MeshExpertExchange : public ExpertExchange {
 public:
  struct Counters {
    uint64_t rows_brought = 0;                  // into dispatches
    uint64_t rows_sent = 0, rows_received = 0;  // by dispatches, to and from other ranks
    uint64_t expert_rows = 0;                   // given out, each as often as it meets an expert of this rank
    uint64_t num_exchanges = 0, num_passes = 0;
  };

  // members: ranks of the mesh, as many as layout.shape.num_ranks. Borrows the mesh. The error: memory.
  static Result<std::unique_ptr<MeshExpertExchange>> create(Mesh& mesh, std::vector<int> members,
                                                            const ExchangeLayout& layout);
  ~MeshExpertExchange() override;  // in the middle of an exchange, this ends the mesh

  int first_local_expert() const override { return rank_ * num_local_experts(); }
  int num_local_experts() const override { return layout_.shape.num_local_experts(); }
  Status dispatch(const DispatchRows& rows, const CollectiveSite& site) override;
  Status progress() override;
  Result<bool> next(ArrivedRows& arrived) override;
  Result<CombinedRows> combine() override;

  const ExchangeLayout& layout() const { return layout_; }
  const Counters& counters() const { return counters_; }

 private:
  enum class State { kIdle, kStarted, kGivenOut, kThrough };  // of the exchange; the middle two, of its pass
  // One slot of some rank's row whose expert is here: local expert, row of the portion, row of results_.
  struct Pair {
    int32_t expert, row, result_row;
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

  MeshExpertExchange(Mesh& mesh, std::vector<int> members, int rank, const ExchangeLayout& layout);
  int num_ranks() const { return static_cast<int>(members_.size()); }
  // All in the order in which this rank turns to them: not everybody to the first one first.
  int peer_at(int step) const { return (rank_ + step) % num_ranks(); }
  void find_holders();
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
  // The local pairs of the row that arrives; their results go to result_row and on.
  template <class ExpertOf>
  void add_pairs(ExpertOf expert_of, int64_t& result_row);
  void sort_pairs();
  void start_result_receives();
  void start_result_sends();

  // Operations: the first num_ranks() entries are rows, the others results; those that are not under way are done.
  SendOp& row_send(int peer) { return sends_[static_cast<size_t>(peer)]; }
  SendOp& result_send(int peer) { return sends_[static_cast<size_t>(num_ranks() + peer)]; }
  ReceiveOp& row_receive(int peer) { return receives_[static_cast<size_t>(peer)]; }
  ReceiveOp& result_receive(int peer) { return receives_[static_cast<size_t>(num_ranks() + peer)]; }
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
  ExchangeLayout layout_;
  Counters counters_;

  // This exchange.
  State state_ = State::kIdle;
  CollectiveSite site_;
  DispatchRows own_;
  std::vector<Peer> peers_;
  std::vector<uint16_t> holders_;   // [own rows, top_k]: the rank that holds the slot's expert
  std::vector<int32_t> peer_rows_;  // own rows by destination
  std::vector<int32_t> row_ids_;    // [own rows, top_k] of the combined results
  int64_t num_combined_ = 0;        // rows of the combined results that have an owner
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
