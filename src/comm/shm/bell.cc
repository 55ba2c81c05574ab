#include "comm/shm/bell.h"

#include <unistd.h>

#include <algorithm>

namespace cachalot {

void Bell::prepare(const RingSet& posted, const RingSet& awaited, bool any) {
  any_.store(any ? 1 : 0, std::memory_order_relaxed);  // read by who has seen a bit of awaited_
  sleeping_.store(1);
  for (size_t word = 0; word < RingSet::kWords; word++) {
    // Both are empty between sleeps: most words stay so.
    if (posted.words[word] != 0) posted_[word].store(posted.words[word]);
    if (awaited.words[word] != 0) awaited_[word].store(awaited.words[word]);
  }
}

bool Bell::end() {
  const bool woken = sleeping_.exchange(0) == 0;
  // A peer that clears its bit afterwards finds it cleared.
  for (auto& word : awaited_) word.store(0, std::memory_order_relaxed);
  for (auto& word : posted_) word.store(0, std::memory_order_relaxed);
  return woken;
}

void Bell::tell_published(uint32_t ring, int event_fd) {
  auto& word = awaited_[RingSet::word_of(ring)];
  const uint64_t bit = RingSet::bit_of(ring);
  if ((word.load() & bit) == 0 || (word.fetch_and(~bit) & bit) == 0) return;
  // Of two peers that clear the last bits of two words, at least one sees that all are clear.
  if (any_.load(std::memory_order_relaxed) != 0 ||
      std::ranges::all_of(awaited_, [](const auto& other) { return other.load() == 0; }))
    wake(event_fd);
}

void Bell::tell_closed(int event_fd) {
  num_closed_.fetch_add(1);
  wake(event_fd);
}

void Bell::wake(int event_fd) {
  if (sleeping_.load() == 0 || sleeping_.exchange(0) == 0) return;
  const uint64_t one = 1;
  // An eventfd takes any number of ones; and whoever waits has a deadline.
  [[maybe_unused]] const ssize_t written = write(event_fd, &one, sizeof(one));
}

}  // namespace cachalot
