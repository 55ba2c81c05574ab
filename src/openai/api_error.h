#pragma once

#include <boost/json/object.hpp>
#include <expected>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "http/message.h"

namespace cachalot::openai {

// What a client is told when something is wrong, in OpenAI's shape: {"error": {"message", "type", "param", "code"}}.
struct ApiError {
  int status = 400;
  std::string message;
  std::string type = "invalid_request_error";
  std::string param;  // the request's field at fault; empty: null
  std::string code;   // a word for programs; empty: null
  // Any other server would answer so, too: the router sends the request to no further one.
  bool is_final = false;

  ApiError(int status, std::string message, std::string type, std::string param = {}, std::string code = {});
  // So that functions that give a Result can be used where ApiResult is given.
  ApiError(const Error& error);  // NOLINT(google-explicit-constructor)

  boost::json::object to_json() const;
  // With further fields.
  http::Response to_response(const http::Headers& headers = {}) const;
};

template <class T>
using ApiResult = std::expected<T, ApiError>;

// The request's own fault: a 400.
std::unexpected<ApiError> invalid_request(std::string message, std::string param = {}, std::string code = {});

boost::json::value text_or_null(const std::string& text);  // null: it is empty

// The 401 for a request that brings none of the keys; none if it may pass: it has one, no key is asked for, or its path
// is open to all.
std::optional<http::Response> check_api_key(const http::Request& head, const std::vector<std::string>& keys,
                                            std::span<const std::string_view> open_paths);

}  // namespace cachalot::openai
