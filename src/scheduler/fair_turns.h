#pragma once

#include <algorithm>
#include <cstdint>
#include <unordered_map>

namespace cachalot {

// Turns in which requests of several clients are served fairly (start-time fair queueing): a client's request begins
// where the one before it ends, and no earlier than what is served now. So a thousand requests of one client stand
// behind each other, and the one of another stands beside the first of them. A state machine of its inputs alone.
class FairTurns {
 public:
  // Of a request that costs so much. Client 0 is nobody in particular: such requests stand beside those served now.
  int64_t next(uint64_t client, int64_t cost) {
    if (client == 0) return now_;
    if (ends_.size() > kMostClients) std::erase_if(ends_, [&](const auto& entry) { return entry.second <= now_; });
    int64_t& end = ends_[client];
    const int64_t begin = std::max(end, now_);
    end = begin + cost;
    return begin;
  }
  // A request of this turn is served.
  void serve(int64_t turn) { now_ = std::max(now_, turn); }

 private:
  static constexpr size_t kMostClients = 4096;  // remembered, though they have nothing to wait for

  int64_t now_ = 0;
  std::unordered_map<uint64_t, int64_t> ends_;
};

}  // namespace cachalot
