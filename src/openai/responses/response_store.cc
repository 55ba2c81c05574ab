#include "openai/responses/response_store.h"

#include <fmt/format.h>
#include <sys/random.h>

#define XXH_INLINE_ALL  // header only
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <boost/json/array.hpp>
#include <boost/json/parse.hpp>

#include "base/error.h"
#include "base/text.h"
#include "config/json.h"
#include "openai/request/transcript.h"

namespace cachalot::openai {

namespace json = boost::json;

namespace response_ids {

namespace {

constexpr std::string_view kPrefix = "resp_";
constexpr std::string_view kItemPrefixes[] = {"msg_", "rs_", "fc_", "fco_"};
constexpr size_t kMarkDigits = 16, kDigits = 48;

std::string random_digits(size_t num_words) {
  std::array<uint64_t, 2> words{};
  CHECK(num_words <= words.size());
  // Nobody may guess it, so it is the system's.
  CHECK(getrandom(words.data(), sizeof(words), 0) == sizeof(words), "the system has no random numbers");
  std::string digits;
  for (size_t i = 0; i < num_words; ++i) digits += fmt::format("{:016x}", words[i]);
  return digits;
}

// Mark and random bits; empty: it is no id.
std::string_view digits_of(std::string_view id, std::string_view prefix) {
  if (!id.starts_with(prefix)) return {};
  const std::string_view digits = id.substr(prefix.size()).substr(0, kDigits);
  const bool is_hex =
      std::ranges::all_of(digits, [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
  return digits.size() == kDigits && is_hex ? digits : std::string_view();
}

std::string_view item_digits_of(std::string_view id) {
  for (const std::string_view prefix : kItemPrefixes)
    if (const std::string_view digits = digits_of(id, prefix); !digits.empty()) return digits;
  return {};
}

}  // namespace

std::string make_mark() {
  return random_digits(1);
}

std::string make(std::string_view mark) {
  return fmt::format("{}{}{}", kPrefix, mark, random_digits(2));
}

std::string of_item(std::string_view prefix, std::string_view response_id, size_t idx, bool is_input) {
  return fmt::format("{}_{}{}{:02x}", prefix, response_id.substr(kPrefix.size()), is_input ? "i" : "", idx);
}

std::optional<std::string_view> mark_of(std::string_view id) {
  std::string_view digits = digits_of(id, kPrefix);
  if (digits.empty()) digits = item_digits_of(id);
  if (digits.empty()) return std::nullopt;
  return digits.substr(0, kMarkDigits);
}

std::optional<std::string> response_of_item(std::string_view item_id) {
  const std::string_view digits = item_digits_of(item_id);
  if (digits.empty()) return std::nullopt;
  return fmt::format("{}{}", kPrefix, digits);
}

}  // namespace response_ids

std::string owner_of(const http::Request& head) {
  // Keys do not stand in memory longer than their requests.
  const std::string text =
      fmt::format("{}\n{}", api_key_of(head), head.headers.find(kOwnerField).value_or(std::string_view()));
  const XXH128_hash_t hash = XXH3_128bits(text.data(), text.size());
  return fmt::format("{:016x}{:016x}", hash.high64, hash.low64);
}

uint64_t client_of(const http::Request& head, bool may_name) {
  const std::string_view key = api_key_of(head);
  const std::string_view named = may_name ? head.headers.find(kOwnerField).value_or("") : std::string_view();
  if (key.empty() && named.empty()) return 0;
  const std::string text = fmt::format("{}\n{}", key, named);
  return std::max<uint64_t>(XXH3_64bits(text.data(), text.size()), 1);
}

void ResponseStore::put(const std::string& id, StoredResponse response) {
  const int64_t size = static_cast<int64_t>(id.size() + response.num_bytes()) + kEntryBytes;
  if (size > max_bytes_) return;
  const std::string owner = response.owner;
  const std::lock_guard lock(mutex_);
  if (const auto found = by_id_.find(id); found != by_id_.end()) {  // told again, by a server that went on with it
    if (found->second->response->owner != owner) return;
    erase(found->second);
  }
  entries_.push_front({id, std::make_shared<const StoredResponse>(std::move(response))});
  by_id_.emplace(entries_.front().id, entries_.begin());
  num_bytes_ += size;
  // What it builds upon is worth keeping as long as itself.
  for (std::string_view used = id; !used.empty();) {
    const Stored found = use(used, owner);
    used = found ? std::string_view(found->previous_id) : std::string_view();
  }
  while (num_bytes_ > max_bytes_) erase(std::prev(entries_.end()));
}

ResponseStore::Stored ResponseStore::use(std::string_view id, std::string_view owner) {
  const auto found = by_id_.find(id);
  if (found == by_id_.end() || found->second->response->owner != owner) return nullptr;
  entries_.splice(entries_.begin(), entries_, found->second);
  return found->second->response;
}

ResponseStore::Stored ResponseStore::find(std::string_view id, std::string_view owner) {
  const std::lock_guard lock(mutex_);
  return use(id, owner);
}

std::vector<ResponseStore::Stored> ResponseStore::find_thread(std::string_view id, std::string_view owner) {
  std::vector<Stored> thread;
  const std::lock_guard lock(mutex_);
  while (!id.empty()) {
    thread.push_back(use(id, owner));
    id = thread.back() ? std::string_view(thread.back()->previous_id) : std::string_view();
  }
  std::ranges::reverse(thread);
  return thread;
}

void ResponseStore::erase(Entries::iterator entry) {
  num_bytes_ -= static_cast<int64_t>(entry->id.size() + entry->response->num_bytes()) + kEntryBytes;
  by_id_.erase(entry->id);
  entries_.erase(entry);
}

bool ResponseStore::erase(std::string_view id, std::string_view owner) {
  const std::lock_guard lock(mutex_);
  const auto found = by_id_.find(id);
  if (found == by_id_.end() || found->second->response->owner != owner) return false;
  erase(found->second);
  return true;
}

namespace {
constexpr size_t kMostDepth = 80;  // of what is stored
}

json::array ResponseStore::referred_by(const json::object& body, std::string_view owner) {
  json::array all;
  const auto add = [&](std::string id) {
    const Stored stored = find(id, owner);
    if (!stored) return std::string();
    all.push_back({{"id", std::move(id)},
                   {"response", stored->response},
                   {"input_items", stored->input_items},
                   {"previous_id", stored->previous_id}});
    return stored->previous_id;
  };
  for (std::string id(text_at(body, "previous_response_id")); !id.empty();) id = add(std::move(id));
  const json::value* input = body.if_contains("input");
  if (!input || !input->is_array()) return all;
  for (const json::value& item : input->get_array())
    if (const json::object* of = item.if_object(); of && text_at(*of, "type") == "item_reference")
      if (auto id = response_ids::response_of_item(text_at(*of, "id"))) add(std::move(*id));
  return all;
}

void ResponseStore::put_referred(const json::array& all, const std::string& owner) {
  for (const json::value& one : all) {
    const json::object* of = one.if_object();
    const std::string_view id = of ? text_at(*of, "id") : std::string_view();
    const auto mark = response_ids::mark_of(id);
    if (!mark || mark == mark_ || find(id, owner)) continue;  // the own ones are nobody else's to tell
    boost::system::error_code error, other_error;
    const json::value response = json::parse(text_at(*of, "response"), error, {}, {.max_depth = kMostDepth});
    const json::value items = json::parse(text_at(*of, "input_items"), other_error, {}, {.max_depth = kMostDepth});
    const bool is_sound = !error && !other_error && items.is_array() && response.is_object() &&
                          response.get_object().contains("output") && response.at("output").is_array();
    if (is_sound)
      put(std::string(id), {.owner = owner,
                            .response = std::string(text_at(*of, "response")),
                            .input_items = std::string(text_at(*of, "input_items")),
                            .previous_id = std::string(text_at(*of, "previous_id"))});
  }
}

int64_t ResponseStore::num_bytes() const {
  const std::lock_guard lock(mutex_);
  return num_bytes_;
}

namespace {

// "limit=2&after=msg_1"; empty: it is not there, or its escapes are broken.
std::string query_value(std::string_view target, std::string_view name) {
  std::string_view query = target.substr(std::min(target.find('?'), target.size()));
  while (!query.empty()) {
    query.remove_prefix(1);
    const std::string_view pair = query.substr(0, query.find('&'));
    const size_t equals = std::min(pair.find('='), pair.size());
    if (pair.substr(0, equals) == name)
      return http::percent_decode(pair.substr(std::min(equals + 1, pair.size()))).value_or("");
    query.remove_prefix(pair.size());
  }
  return {};
}

ApiResult<std::string> list_input_items(const StoredResponse& stored, std::string_view target) {
  constexpr int kDefaultItems = 20, kMostItems = 100;
  const std::string limit_text = query_value(target, "limit"), order = query_value(target, "order"),
                    after = query_value(target, "after");
  const int limit = limit_text.empty() ? kDefaultItems : parse_number<int>(limit_text).value_or(0);
  if (limit < 1 || limit > kMostItems)
    return invalid_request(fmt::format("limit is {}; it must be from 1 to {}", quoted(limit_text), kMostItems),
                           "limit");
  if (!order.empty() && order != "asc" && order != "desc")
    return invalid_request(fmt::format("order is {}; it must be asc or desc", quoted(order)), "order");
  json::array items = json::parse(stored.input_items, {}, {.max_depth = 80}).as_array();
  if (order != "asc") std::ranges::reverse(items);
  auto begin = items.begin();
  if (!after.empty()) {
    begin = std::ranges::find_if(items, [&](const json::value& item) { return item.at("id").as_string() == after; });
    if (begin == items.end())
      return invalid_request(fmt::format("after is {}, which is none of the items", quoted(after)), "after");
    ++begin;
  }
  const auto end = items.end() - begin > limit ? begin + limit : items.end();
  const json::array data(begin, end);
  return json_text({{"object", "list"},
                    {"data", data},
                    {"first_id", data.empty() ? json::value() : data.front().at("id")},
                    {"last_id", data.empty() ? json::value() : data.back().at("id")},
                    {"has_more", end != items.end()}});
}

}  // namespace

http::Response answer_stored(const http::Request& request, ResponseStore& store) {
  constexpr std::string_view kRoot = "/v1/responses/";
  const std::string_view path = std::string_view(request.path).substr(kRoot.size());
  const std::string_view id = path.substr(0, path.find('/')), rest = path.substr(id.size());
  const bool is_known_path = request.method == "POST"     ? rest == "/cancel"
                             : request.method == "DELETE" ? rest.empty()
                                                          : rest.empty() || rest == "/input_items";
  if (!is_known_path)
    return ApiError(404, fmt::format("there is no {}", quoted(request.path)), "invalid_request_error").to_response();
  const std::string owner = owner_of(request);
  const ResponseStore::Stored stored = store.find(id, owner);
  if (!stored)
    return ApiError(404, fmt::format("Response with id {} not found.", quoted(id)), "invalid_request_error",
                    "response_id", "response_not_found")
        .to_response();
  if (request.method == "POST")
    return invalid_request(
               "only a response that is generated in the background can be cancelled, and there are none "
               "here; a client that goes away ends its request",
               "response_id")
        .error()
        .to_response();
  if (request.method == "DELETE") {
    store.erase(id, owner);
    return http::Response::json(200, json_text({{"id", id}, {"object", "response"}, {"deleted", true}}));
  }
  if (query_value(request.target, "stream") == "true")
    return invalid_request("stream is true; it must be false: an answer is streamed once, to who asked for it",
                           "stream")
        .error()
        .to_response();
  if (rest.empty()) return http::Response::json(200, stored->response);
  const ApiResult<std::string> list = list_input_items(*stored, request.target);
  return list ? http::Response::json(200, *list) : list.error().to_response();
}

}  // namespace cachalot::openai
