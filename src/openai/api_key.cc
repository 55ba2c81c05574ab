#include "openai/api_key.h"

#include <algorithm>

#include "openai/api_error.h"

namespace cachalot::openai {

namespace {

// Takes the same time wherever the first difference is.
bool equal_in_constant_time(std::string_view a, std::string_view b) {
  unsigned difference = a.size() == b.size() ? 0 : 1;
  for (size_t i = 0; i < a.size(); ++i)
    difference |= static_cast<unsigned char>(a[i] ^ b[b.empty() ? 0 : i % b.size()]);
  return difference == 0 && !b.empty();
}

}  // namespace

std::optional<http::Response> check_api_key(const http::Request& head, const std::vector<std::string>& keys,
                                            std::span<const std::string_view> open_paths) {
  if (keys.empty() || std::ranges::find(open_paths, head.path) != open_paths.end()) return std::nullopt;
  constexpr std::string_view kScheme = "Bearer ";
  std::string_view given = head.headers.find("Authorization").value_or("");
  const bool has_scheme =
      given.size() >= kScheme.size() && http::equal_ignoring_case(given.substr(0, kScheme.size()), kScheme);
  given.remove_prefix(has_scheme ? kScheme.size() : given.size());
  bool opens = false;
  for (const std::string& key : keys) opens |= equal_in_constant_time(given, key);
  if (opens) return std::nullopt;
  return ApiError(401, "the API key is missing or wrong; send it as \"Authorization: Bearer KEY\"",
                  "invalid_request_error", "", "invalid_api_key")
      .to_response();
}

}  // namespace cachalot::openai
