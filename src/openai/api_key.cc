#include "openai/api_key.h"

#include <algorithm>

#include "base/math.h"
#include "openai/api_error.h"

namespace cachalot::openai {

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
