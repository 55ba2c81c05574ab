#pragma once

#include <boost/json/array.hpp>
#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "openai/api_error.h"

namespace cachalot::openai {

// The ids of Responses and of their items: a prefix that names the kind, the mark of the server that made it, which a
// router finds the server by, and 128 random bits. Items have their place behind that.
//
//   resp_0123456789abcdef0123456789abcdef0123456789abcdef      msg_0123...cdef07
//        mark            random
namespace response_ids {

std::string make_mark();
std::string make(std::string_view mark);
// Of the `idx`-th item of the answer, or of the request's input.
std::string of_item(std::string_view prefix, std::string_view response_id, size_t idx, bool is_input = false);

// None: the text is no such id.
std::optional<std::string_view> mark_of(std::string_view id);
std::optional<std::string> response_of_item(std::string_view item_id);

}  // namespace response_ids

// An answer of /v1/responses that may be asked for again, with what it answered. Texts of JSON.
struct StoredResponse {
  std::string owner;        // whose it is (owner_of)
  std::string response;     // the object
  std::string input_items;  // of its own request, a list
  std::string previous_id;  // of the response that it went on from; may be empty

  size_t num_bytes() const { return owner.size() + response.size() + input_items.size() + previous_id.size(); }
};

// Who may ask for what a request leaves behind: everybody who has its API key. A router that has clients with keys of
// their own says whose request it is.
std::string owner_of(const http::Request& head);
// The same as a number, for those who share their turns; 0: it brings neither key nor name. `may_name`: what the field
// below says counts, too.
uint64_t client_of(const http::Request& head, bool may_name);
// The header field in which it does.
inline constexpr std::string_view kOwnerField = "X-Cachalot-Client";

// Answers in memory, of so many bytes; what was used longest ago goes first, and of those that build upon another the
// last ones. Thread-safe.
class ResponseStore {
 public:
  using Stored = std::shared_ptr<const StoredResponse>;

  explicit ResponseStore(int64_t max_bytes) : max_bytes_(max_bytes), mark_(response_ids::make_mark()) {}

  const std::string& mark() const { return mark_; }  // of this server's ids
  std::string make_id() const { return response_ids::make(mark_); }

  void put(const std::string& id, StoredResponse response);
  // Null: it is not there, or another's.
  Stored find(std::string_view id, std::string_view owner);
  // The response and all those that it builds upon, the first of them first; null at the place of one that is gone.
  std::vector<Stored> find_thread(std::string_view id, std::string_view owner);
  bool erase(std::string_view id, std::string_view owner);
  // All that a request's body refers to, for a server that goes on with its answer; and there.
  boost::json::array referred_by(const boost::json::object& body, std::string_view owner);
  void put_referred(const boost::json::array& all, const std::string& owner);

  int64_t num_bytes() const;

 private:
  struct Entry {
    std::string id;
    Stored response;
  };
  using Entries = std::list<Entry>;  // the last used first

  // Of a locked store.
  Stored use(std::string_view id, std::string_view owner);
  void erase(Entries::iterator entry);

  // What an entry takes beside its texts.
  static constexpr int64_t kEntryBytes = 512;

  const int64_t max_bytes_;
  const std::string mark_;
  mutable std::mutex mutex_;  // guards what follows
  Entries entries_;
  std::unordered_map<std::string_view, Entries::iterator> by_id_;
  int64_t num_bytes_ = 0;
};

// GET and DELETE of /v1/responses/ID, GET of .../input_items, POST of .../cancel.
http::Response answer_stored(const http::Request& request, ResponseStore& store);

}  // namespace cachalot::openai
