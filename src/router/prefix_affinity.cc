#include "router/prefix_affinity.h"

#define XXH_INLINE_ALL  // header only, as in cache/block_hash.cc
#include <xxhash.h>

#include <algorithm>
#include <iterator>

namespace cachalot::router {

std::vector<Prefix> prefixes_of(std::string_view prompt) {
  std::vector<Prefix> prefixes;
  for (size_t num_bytes = Prefix::kShortest; num_bytes <= std::min(prompt.size(), Prefix::kLongest); num_bytes *= 2)
    prefixes.push_back({num_bytes, XXH3_64bits(prompt.data(), num_bytes)});
  return prefixes;
}

void PrefixAffinity::remember(std::span<const Prefix> prefixes, size_t replica) {
  for (const Prefix& prefix : prefixes) {
    if (const auto known = by_hash_.find(prefix.hash); known != by_hash_.end()) {
      known->second->replica = replica;
      entries_.splice(entries_.begin(), entries_, known->second);
      continue;
    }
    entries_.push_front({prefix.hash, replica});
    by_hash_.emplace(prefix.hash, entries_.begin());
    if (entries_.size() <= max_entries_) continue;
    by_hash_.erase(entries_.back().hash);
    entries_.pop_back();
  }
}

std::vector<size_t> PrefixAffinity::known_bytes(std::span<const Prefix> prefixes, size_t num_replicas) const {
  std::vector<size_t> known(num_replicas, 0);
  for (const Prefix& prefix : prefixes)
    if (const auto found = by_hash_.find(prefix.hash); found != by_hash_.end())
      known[found->second->replica] = prefix.num_bytes;
  return known;
}

void PrefixAffinity::forget(size_t replica) {
  for (auto entry = entries_.begin(); entry != entries_.end();) {
    const auto next = std::next(entry);
    if (entry->replica == replica) {
      by_hash_.erase(entry->hash);
      entries_.erase(entry);
    }
    entry = next;
  }
}

}  // namespace cachalot::router
