#include "comm/shm/shm_board.h"

#include <unistd.h>

#include <algorithm>
#include <utility>

namespace cachalot {

ShmBoard::ShmBoard(std::vector<Member> members, int rank, std::array<int, 2> event_fds, Counter& bytes_sent,
                   Counter& bytes_received)
    : members_(std::move(members)),
      rank_(rank),
      event_fds_(event_fds),
      control_(members_.front().segment->board_control()),
      bytes_sent_(bytes_sent),
      bytes_received_(bytes_received) {
  const auto smallest = std::ranges::min_element(
      members_, {}, [](const Member& member) { return member.segment->layout().slot_bytes(); });
  slot_bytes_ = smallest->segment->layout().slot_bytes() - BoardSlot::kDataOffset;
}

bool ShmBoard::arrive(uint64_t note) {
  slot(rank_).note = note;
  slot(rank_).round.store(round_, std::memory_order_relaxed);
  // Whoever sees the sum sees what this rank wrote before.
  if (control_.num_arrived.fetch_add(1) + 1 != round_ * members_.size()) return false;
  // Published with the round. One rank compares for all.
  bool agree = true;
  for (int member = 0; member < size(); member++) agree = agree && slot(member).note == note;
  control_.notes_agree.store(agree ? 1 : 0, std::memory_order_relaxed);
  control_.last.store(static_cast<uint32_t>(rank_), std::memory_order_relaxed);
  // Nobody sleeps in the round before any more.
  if (control_.is_rung[(round_ + 1) % 2].exchange(0) != 0) {
    uint64_t count;
    [[maybe_unused]] const ssize_t size = read(event_fds_[(round_ + 1) % 2], &count, sizeof(count));
  }
  return true;
}

// All others have arrived and do nothing but wait for this. A rank that is going to sleep says so and looks once more;
// here it is published first and looked for sleepers then.
void ShmBoard::publish() {
  control_.published.store(round_);
  if (control_.num_sleeping.load() == 0) return;
  control_.is_rung[round_ % 2].store(1);
  const uint64_t one = 1;
  // It takes any number of ones; and whoever waits has a deadline.
  [[maybe_unused]] const ssize_t size = write(event_fds_[round_ % 2], &one, sizeof(one));
}

int ShmBoard::prepare_sleep() {
  control_.num_sleeping.fetch_add(1);
  return event_fds_[round_ % 2];
}

int ShmBoard::last() const {
  // A peer's memory: whatever it says, the answer is a member.
  return static_cast<int>(control_.last.load(std::memory_order_relaxed) % members_.size());
}

// Of one that has arrived nothing more is wanted: the round may go on without it.
Status ShmBoard::check_members() const {
  if (members_[rank_].segment->bell().num_closed() == 0) return {};  // one look for all
  for (int member = 0; member < size(); member++) {
    const RingControl* ring = members_[member].ring;
    if (ring != nullptr && ring->closed.load() != 0 && slot(member).round.load() != round_)
      return make_error(ErrorCode::kUnavailable, "rank {} has closed its connections (shared memory)",
                        members_[member].rank);
  }
  return {};
}

std::vector<int> ShmBoard::awaited() const {
  std::vector<int> ranks;
  for (int member = 0; member < size(); member++) {
    if (slot(member).round.load() != round_) ranks.push_back(members_[member].rank);
  }
  // All are there, and one of them does not publish: which, nobody else can tell.
  for (int member = 0; ranks.empty() && member < size(); member++) {
    if (member != rank_) ranks.push_back(members_[member].rank);
  }
  return ranks;
}

void ShmBoard::count(uint64_t sent, uint64_t received) {
  bytes_sent_ += sent;
  bytes_received_ += received;
}

}  // namespace cachalot
