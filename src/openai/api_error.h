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

// Whose clients read an error: OpenAI's {"error": {"message", "type", "param", "code"}}, or Anthropic's
// {"type": "error", "error": {"type", "message", "details": {"error_code"}}, "request_id"}.
enum class ErrorForm { kOpenAi, kAnthropic };
// Of the answers of a path; of those to a request, whose path both may have.
ErrorForm error_form(std::string_view path);
ErrorForm error_form(const http::Request& request);

// What a client is told when something is wrong.
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

  // `request_id`: for Anthropic's form; empty: null.
  boost::json::object to_json(ErrorForm form = ErrorForm::kOpenAi, std::string_view request_id = {}) const;
  // With further fields, of which X-Request-Id is the id.
  http::Response to_response(const http::Headers& headers = {}, ErrorForm form = ErrorForm::kOpenAi) const;
  // The last event of a stream that broke off.
  std::string to_event(ErrorForm form = ErrorForm::kOpenAi, std::string_view request_id = {}) const;
};

template <class T>
using ApiResult = std::expected<T, ApiError>;

// The request's own fault: a 400.
std::unexpected<ApiError> invalid_request(std::string message, std::string param = {}, std::string code = {});

boost::json::value text_or_null(const std::string& text);  // null: it is empty

// The key that a request brings: "Authorization: Bearer KEY" or, as Anthropic's clients have it, "x-api-key: KEY".
std::string_view api_key_of(const http::Request& head);

}  // namespace cachalot::openai
