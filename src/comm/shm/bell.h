#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

namespace cachalot {

// Some of a rank's rings, a bit each.
struct RingSet {
  static constexpr size_t kWords = 7;
  static constexpr uint32_t kMaxRings = kWords * 64;

  std::array<uint64_t, kWords> words{};

  static size_t word_of(uint32_t ring) { return ring / 64; }
  static uint64_t bit_of(uint32_t ring) { return uint64_t{1} << ring % 64; }
  void insert(uint32_t ring) { words[word_of(ring)] |= bit_of(ring); }
  void erase(uint32_t ring) { words[word_of(ring)] &= ~bit_of(ring); }
  bool contains(uint32_t ring) const { return (words[word_of(ring)] & bit_of(ring)) != 0; }
};

// The part of a rank's shared memory by which it sleeps: the owner says that it does, and for which rings; peers wake
// it through an eventfd. What is written on one side and then looked for on the other (tail and awaited, tail and
// posted, head and starved, sleeping) is sequentially consistent: of two ranks that each write one word and then read
// the other's, at least one sees what the other wrote.
//
//   owner, going to sleep                           peer, after publishing (tail)
//     sleeping = 1                                    its bit of awaited is set: clear it,
//     posted = rings where a receive waits              and if it was the last one, or `any` is set: wake
//     awaited = those that it sleeps for              wake: swap sleeping for 0; if it was 1, write the eventfd
//     look at all rings once more; sleep
//
// So a rank that waits for 31 messages is woken once, by the last. A peer that is slow to clear its bit may clear that
// of the owner's next sleep: then the owner wakes too early, looks, and sleeps again; it never wakes too late. Nobody
// may wait for a sleeping rank: a peer whose message is longer than the space in its ring sets `starved`, wakes the
// owner if a receive is posted there (it will make space), and sleeps in its turn until the owner, having made space,
// swaps `starved` for 0 and wakes it.
class Bell {
 public:
  // For the owner. The next sleep ends when the last awaited ring has a message, or, if `any`, the first.
  void prepare(const RingSet& posted, const RingSet& awaited, bool any);
  bool end();  // gives whether a peer has woken it, or is about to write the eventfd

  // For peers.
  void tell_published(uint32_t ring, int event_fd);
  bool is_posted(uint32_t ring) const { return (posted_[RingSet::word_of(ring)].load() & RingSet::bit_of(ring)) != 0; }
  void wake(int event_fd);         // the owner, if it sleeps
  void tell_closed(int event_fd);  // the peer sends nothing more
  // For the owner: how many have said so.
  uint32_t num_closed() const { return num_closed_.load(); }

 private:
  using Words = std::array<std::atomic<uint64_t>, RingSet::kWords>;

  // One cache line, which every message to a sleeper changes, and another for what is seldom looked at.
  alignas(64) std::atomic<uint32_t> sleeping_;
  std::atomic<uint32_t> any_;
  Words awaited_;  // set by the owner, cleared by peers
  alignas(64) Words posted_;
  std::atomic<uint32_t> num_closed_;  // peers: one word to look at for all
};
static_assert(sizeof(Bell) == 128);

}  // namespace cachalot
