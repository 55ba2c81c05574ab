#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "http/message.h"

namespace cachalot::openai {

// The 401 for a request that brings none of the keys; none if it may pass: it has one, no key is asked for, or its path
// is open to all.
std::optional<http::Response> check_api_key(const http::Request& head, const std::vector<std::string>& keys,
                                            std::span<const std::string_view> open_paths);

}  // namespace cachalot::openai
