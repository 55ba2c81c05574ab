#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <list>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace cachalot::router {

// A beginning of a prompt: its length and its hash. A prompt has one of each length kShortest, twice that, and so on.
struct Prefix {
  size_t num_bytes = 0;
  uint64_t hash = 0;

  static constexpr size_t kShortest = 256;  // about a block of the KV cache
  static constexpr size_t kLongest = 64 << 10;
};

// The shortest first; none for a text shorter than kShortest.
std::vector<Prefix> prefixes_of(std::string_view prompt);

// Which replica last saw which beginnings, and so may have them in its cache. Bounded: what was used longest ago is
// forgotten first. Not thread-safe.
class PrefixAffinity {
 public:
  explicit PrefixAffinity(size_t max_entries) : max_entries_(max_entries) {}

  // The replica gets a request that begins so.
  void remember(std::span<const Prefix> prefixes, size_t replica);
  // For each replica the bytes of the longest beginning that it saw last. Not more than there is in its cache, if its
  // cache has kept it; but it may have a longer one.
  std::vector<size_t> known_bytes(std::span<const Prefix> prefixes, size_t num_replicas) const;
  // What it had in its cache is gone.
  void forget(size_t replica);

  size_t size() const { return entries_.size(); }

 private:
  struct Entry {
    uint64_t hash;
    size_t replica;
  };
  using Entries = std::list<Entry>;  // the last used first

  const size_t max_entries_;
  Entries entries_;
  std::unordered_map<uint64_t, Entries::iterator> by_hash_;
};

// What the router reads of a request to choose a replica for it.
struct RequestFacts {
  double num_prompt_tokens = 0;  // an estimate
  std::vector<Prefix> prefixes;
  std::string
      stored_id;  // of what the request goes on from or refers to, which one replica has (/v1/responses); or empty
  std::string fingerprint;  // of the replicas that can go on with its answer; empty: it has none yet
};

// Reads the prompt or the messages of a JSON body; of one that is cut off, what is there. `refers`: it may refer to
// what is stored, perhaps at its end, and is read whole.
RequestFacts read_request_facts(std::string_view body, bool refers = false);

// Of a request as far as it is held.
uint64_t hash_of(std::string_view target, std::string_view body);

// Requests with which replicas were lost, by hash: one that may have taken two with it is not sent on for a while,
// which doubles each time. Others that were there at that moment are in it, too, therefore the while is short at first.
// The last ones only. Thread-safe.
class Suspects {
 public:
  using Time = std::chrono::steady_clock::time_point;

  void add(uint64_t hash, Time now);
  // It was answered elsewhere: it took nobody with it.
  void acquit(uint64_t hash);
  // For how long it is not to be sent on; none if it may.
  std::optional<std::chrono::seconds> refused_for(uint64_t hash, Time now) const;
  bool empty() const { return num_known_ == 0; }

 private:
  struct Suspect {
    int num_losses = 0;
    Time last;
  };
  static std::chrono::seconds penalty(int num_losses);

  mutable std::mutex mutex_;  // guards what follows
  std::unordered_map<uint64_t, Suspect> known_;
  std::atomic<size_t> num_known_ = 0;
};

}  // namespace cachalot::router
