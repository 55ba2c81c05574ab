#include "router/request_facts.h"

#define XXH_INLINE_ALL  // header only
#include <xxhash.h>

#include <algorithm>
#include <boost/json/basic_parser_impl.hpp>
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

namespace {

namespace json = boost::json;

constexpr double kMeanTokenBytes = 4;
// A millisecond's work, and of what may refer to something four; of what follows only the length counts.
constexpr size_t kMostRead = 256 << 10, kMostReadForReferences = 1 << 20;

// The top-level keys that prompts stand under.
constexpr std::string_view kPromptKeys[] = {"prompt", "messages", "system", "input", "instructions"};
constexpr size_t kMostIdBytes = 256;

// Hears a document's parts and keeps the text of its prompt: the strings (also the names, such as "content", so that
// roles stay apart) and the token ids below those keys. And what it refers to: "previous_response_id", or the first
// item of type "item_reference" of "input".
class PromptReader {
 public:
  static constexpr size_t max_object_size = static_cast<size_t>(-1);
  static constexpr size_t max_array_size = static_cast<size_t>(-1);
  static constexpr size_t max_key_size = static_cast<size_t>(-1);
  static constexpr size_t max_string_size = static_cast<size_t>(-1);

  std::string text;      // no longer than the longest prefix
  size_t num_bytes = 0;  // of all of it
  size_t num_ids = 0;
  std::string previous_id, reference_id;

  bool on_document_begin(json::error_code&) { return true; }
  bool on_document_end(json::error_code&) { return true; }
  bool on_object_begin(json::error_code&) {
    if (depth_ == kItemDepth - 1) item_id_ = item_type_ = {};
    return enter();
  }
  bool on_object_end(size_t, json::error_code&) {
    if (depth_ == kItemDepth && key_ == "input" && item_type_ == "item_reference" && reference_id.empty())
      reference_id = item_id_;
    return leave();
  }
  bool on_array_begin(json::error_code&) { return enter(); }
  bool on_array_end(size_t, json::error_code&) { return leave(); }
  bool on_key_part(json::string_view part, size_t, json::error_code&) {
    if (std::exchange(is_new_key_, false)) (depth_ == 1 ? key_ : inner_key_).clear();
    append(part, depth_ == 1 ? key_ : inner_key_);
    if (depth_ != 1) take(part);
    return true;
  }
  bool on_key(json::string_view part, size_t size, json::error_code& error) {
    on_key_part(part, size, error);
    is_new_key_ = true;
    if (depth_ != 1) return end_of_text();
    in_prompt_ = std::ranges::find(kPromptKeys, key_) != std::end(kPromptKeys);
    return true;
  }
  bool on_string_part(json::string_view part, size_t, json::error_code&) {
    if (depth_ == 1 && key_ == "previous_response_id") append(part, previous_id);
    if (depth_ == kItemDepth && inner_key_ == "id") append(part, item_id_);
    if (depth_ == kItemDepth && inner_key_ == "type") append(part, item_type_);
    return take(part);
  }
  bool on_string(json::string_view part, size_t size, json::error_code& error) {
    return on_string_part(part, size, error) && end_of_text();
  }
  bool on_number_part(json::string_view, json::error_code&) { return true; }
  bool on_int64(int64_t id, json::string_view, json::error_code&) { return take_id(static_cast<uint64_t>(id)); }
  bool on_uint64(uint64_t id, json::string_view, json::error_code&) { return take_id(id); }
  bool on_double(double, json::string_view, json::error_code&) { return true; }
  bool on_bool(bool, json::error_code&) { return true; }
  bool on_null(json::error_code&) { return true; }
  bool on_comment_part(json::string_view, json::error_code&) { return true; }
  bool on_comment(json::string_view, json::error_code&) { return true; }

 private:
  bool enter() {
    depth_++;
    return true;
  }
  bool leave() {
    depth_--;
    return true;
  }
  // No longer than an id or a name may be.
  static void append(json::string_view part, std::string& name) {
    name.append(part.data(), std::min(part.size(), kMostIdBytes - std::min(name.size(), kMostIdBytes)));
  }
  bool take(json::string_view part) {
    if (!in_prompt_) return true;
    num_bytes += part.size();
    text.append(part.data(), std::min(part.size(), Prefix::kLongest - std::min(text.size(), Prefix::kLongest)));
    return true;
  }
  bool end_of_text() {
    if (in_prompt_ && depth_ > 1) text += '\0';
    return true;
  }
  bool take_id(uint64_t id) {
    if (!in_prompt_) return true;
    num_ids++;
    if (text.size() < Prefix::kLongest) text.append(reinterpret_cast<const char*>(&id), 4);
    return true;
  }

  static constexpr int kItemDepth = 3;  // of the fields of an object in a list under a top-level key

  int depth_ = 0;
  bool in_prompt_ = false;
  std::string key_, inner_key_;  // the last one at the top, and below it
  bool is_new_key_ = true;       // what comes of a key begins it
  std::string item_id_, item_type_;
};

}  // namespace

RequestFacts read_request_facts(std::string_view body, bool refers) {
  json::basic_parser<PromptReader> parser{json::parse_options()};
  json::error_code ignored;  // the replica says what is wrong with it
  const size_t num_read = std::min(body.size(), refers ? kMostReadForReferences : kMostRead);
  parser.write_some(true, body.data(), num_read, ignored);
  const PromptReader& reader = parser.handler();
  return {.num_prompt_tokens = static_cast<double>(reader.num_bytes + body.size() - num_read) / kMeanTokenBytes +
                               static_cast<double>(reader.num_ids),
          .prefixes = prefixes_of(reader.text),
          .stored_id = reader.previous_id.empty() ? reader.reference_id : reader.previous_id};
}

namespace {

constexpr int kLossesOfASuspect = 3;
constexpr std::chrono::seconds kFirstPenalty{30};
constexpr int kMostPenaltyDoublings = 6;
constexpr std::chrono::minutes kSuspectMemory{60};
constexpr size_t kMostSuspects = 4096;

}  // namespace

uint64_t hash_of(std::string_view target, std::string_view body) {
  return XXH3_64bits_withSeed(body.data(), body.size(), XXH3_64bits(target.data(), target.size()));
}

std::chrono::seconds Suspects::penalty(int num_losses) {
  return kFirstPenalty * (1 << std::min(num_losses - kLossesOfASuspect, kMostPenaltyDoublings));
}

void Suspects::add(uint64_t hash, Time now) {
  const std::lock_guard lock(mutex_);
  if (known_.size() >= kMostSuspects && !known_.contains(hash)) {
    std::erase_if(known_, [&](const auto& entry) { return now - entry.second.last > kSuspectMemory; });
    if (known_.size() >= kMostSuspects)
      known_.erase(std::ranges::min_element(known_, {}, [](const auto& entry) { return entry.second.last; }));
  }
  Suspect& suspect = known_[hash];
  suspect.num_losses++;
  suspect.last = now;
  num_known_ = known_.size();
}

void Suspects::acquit(uint64_t hash) {
  const std::lock_guard lock(mutex_);
  known_.erase(hash);
  num_known_ = known_.size();
}

std::optional<std::chrono::seconds> Suspects::refused_for(uint64_t hash, Time now) const {
  const std::lock_guard lock(mutex_);
  const auto found = known_.find(hash);
  if (found == known_.end() || found->second.num_losses < kLossesOfASuspect) return std::nullopt;
  const auto left = found->second.last + penalty(found->second.num_losses) - now;
  if (left <= std::chrono::seconds(0)) return std::nullopt;
  return std::chrono::ceil<std::chrono::seconds>(left);
}

}  // namespace cachalot::router
