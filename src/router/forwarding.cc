#include "router/forwarding.h"

#include <fmt/ranges.h>

#include <array>
#include <cctype>
#include <iterator>
#include <vector>

#include "base/text.h"
#include "openai/answer/answer_log.h"
#include "openai/keys/api_keys.h"
#include "openai/responses/response_store.h"

namespace cachalot::router {

namespace {

using http::equal_ignoring_case;

constexpr std::string_view kForwardedFor = "X-Forwarded-For";
constexpr std::string_view kRequestId = "X-Request-Id";

// Of one connection, not of the message (RFC 9110, 7.6.1), whether or not Connection names them.
constexpr std::array<std::string_view, 9> kHopByHop{
    "Connection",        "Keep-Alive", "Proxy-Connection", "Proxy-Authenticate", "Proxy-Authorization", "TE",
    "Transfer-Encoding", "Trailer",    "Upgrade"};
// The router's own business, or what only the nearest proxy can know.
constexpr std::array<std::string_view, 15> kReplacedInRequests{"Host",
                                                               "Origin",
                                                               "Content-Length",
                                                               "Expect",
                                                               kForwardedFor,
                                                               "X-Forwarded-Proto",
                                                               "X-Forwarded-Host",
                                                               "Forwarded",
                                                               "X-Real-IP",
                                                               kRequestId,
                                                               "X-data-parallel-rank",
                                                               openai::kOwnerField,
                                                               openai::kUsageField,
                                                               openai::kPrioritiesField,
                                                               openai::answer_log::kField};
// What a replica's answer says to the router alone, or has no say in.
constexpr std::array<std::string_view, 4> kReplacedInAnswers{
    "Access-Control-Allow-Origin", "Access-Control-Allow-Credentials", openai::kUsageField, openai::answer_log::kField};
constexpr size_t kMostForwardedFor = 16;  // addresses

// Of a list with commas.
std::vector<std::string_view> elements(std::string_view list) {
  std::vector<std::string_view> found;
  while (!list.empty()) {
    const size_t comma = std::min(list.find(','), list.size());
    found.push_back(trimmed(list.substr(0, comma)));
    list.remove_prefix(std::min(comma + 1, list.size()));
  }
  return found;
}

std::vector<std::string_view> named_by_connection(const http::Headers& headers) {
  std::vector<std::string_view> names;
  for (const auto& [name, value] : headers)
    if (equal_ignoring_case(name, "Connection")) std::ranges::copy(elements(value), std::back_inserter(names));
  return names;
}

// Of what came before, the addresses; whatever else a client writes there is none.
void append_addresses(std::string_view list, std::vector<std::string_view>& addresses) {
  for (const std::string_view one : elements(list)) {
    const bool is_address = !one.empty() && one.size() <= 64 && std::ranges::all_of(one, [](unsigned char c) {
      return std::isalnum(c) || c == '.' || c == ':' || c == '-' || c == '[' || c == ']';
    });
    if (is_address) addresses.push_back(one);
  }
}

// Servers that read fields as variables of an environment take an underscore for a hyphen.
bool has_underscore(std::string_view name) {
  return name.find('_') != name.npos;
}

bool is_among(std::string_view name, const auto& names) {
  return std::ranges::any_of(names, [&](std::string_view other) { return equal_ignoring_case(name, other); });
}

}  // namespace

std::string_view address_of(std::string_view peer) {
  peer = peer.substr(0, peer.rfind(':'));
  return peer.starts_with('[') && peer.ends_with(']') ? peer.substr(1, peer.size() - 2) : peer;
}

http::Headers request_fields(const http::Request& request, const std::string& request_id,
                             const std::string& server_api_key, bool is_https) {
  http::Headers fields;
  std::vector<std::string_view> addresses;
  const auto named = named_by_connection(request.headers);
  for (const auto& [name, value] : request.headers) {
    if (equal_ignoring_case(name, kForwardedFor)) append_addresses(value, addresses);
    if (has_underscore(name) || is_among(name, kHopByHop) || is_among(name, kReplacedInRequests) ||
        is_among(name, named))
      continue;
    fields.add(name, value);
  }
  addresses.push_back(address_of(request.peer));
  if (addresses.size() > kMostForwardedFor) addresses.erase(addresses.begin(), addresses.end() - kMostForwardedFor);
  fields.add(std::string(kForwardedFor), fmt::format("{}", fmt::join(addresses, ", ")));
  const bool was_https =
      is_https || equal_ignoring_case(request.headers.find("X-Forwarded-Proto").value_or(""), "https");
  fields.add("X-Forwarded-Proto", was_https ? "https" : "http");
  fields.add(std::string(kRequestId), request_id);
  if (!server_api_key.empty()) {
    // The server sees one key for all clients; what they store is each one's own.
    fields.erase("x-api-key");
    fields.set("Authorization", "Bearer " + server_api_key);
    fields.add(std::string(openai::kOwnerField), openai::owner_of(request));
  }
  return fields;
}

http::Headers response_fields(const http::Headers& answer, const std::string& request_id) {
  http::Headers fields;
  const auto named = named_by_connection(answer);
  for (const auto& [name, value] : answer)
    if (!is_among(name, kHopByHop) && !is_among(name, named) && !is_among(name, kReplacedInAnswers))
      fields.add(name, value);
  if (!fields.contains(kRequestId)) fields.add(std::string(kRequestId), request_id);
  return fields;
}

}  // namespace cachalot::router
