#pragma once

#include <array>
#include <vector>

#include "comm/board.h"
#include "comm/shm/segment.h"
#include "comm/transport.h"

namespace cachalot {

// A group's board: the slots are in its members' segments, the control in the first member's.
class ShmBoard : public Board {
 public:
  struct Member {
    int rank = -1;                      // in the mesh
    Segment* segment = nullptr;         // has its slots
    const RingControl* ring = nullptr;  // what it sends to this rank; none for this rank itself
  };
  // rank: in the group; event_fds: the first member's, of even and odd rounds. All of it is borrowed from the
  // transport.
  ShmBoard(std::vector<Member> members, int rank, std::array<int, 2> event_fds, Counter& bytes_sent,
           Counter& bytes_received);

  int rank() const override { return rank_; }
  int size() const override { return static_cast<int>(members_.size()); }
  size_t slot_bytes() const override { return slot_bytes_; }
  void begin_round() override { round_++; }
  std::span<std::byte> own() override { return {slot(rank_).data(), slot_bytes_}; }
  bool arrive(uint64_t note) override;
  void publish() override;
  bool is_published() const override { return control_.published.load() >= round_; }
  std::span<const std::byte> of(int member) const override { return {slot(member).data(), slot_bytes_}; }
  bool notes_agree() const override { return control_.notes_agree.load(std::memory_order_relaxed) != 0; }
  uint64_t note_of(int member) const override { return slot(member).note; }
  int last() const override;
  Status check_members() const override;
  int prepare_sleep() override;
  void end_sleep() override { control_.num_sleeping.fetch_sub(1); }
  std::vector<int> awaited() const override;
  void count(uint64_t sent, uint64_t received) override;

 private:
  BoardSlot& slot(int member) const { return members_[member].segment->board_slot(round_ % 2); }

  std::vector<Member> members_;
  int rank_;
  std::array<int, 2> event_fds_;
  BoardControl& control_;
  size_t slot_bytes_;
  uint64_t round_ = 0;
  Counter& bytes_sent_;
  Counter& bytes_received_;
};

}  // namespace cachalot
