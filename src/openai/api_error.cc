#include "openai/api_error.h"

#include "config/json_text.h"

namespace cachalot::openai {

namespace json = boost::json;

namespace {

struct Kind {
  int status;
  const char* type;
};

Kind kind_of(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument:
    case ErrorCode::kUnsupported:
    case ErrorCode::kCorrupt:
      return {400, "invalid_request_error"};
    case ErrorCode::kNotFound:
      return {404, "invalid_request_error"};
    case ErrorCode::kTooLarge:
      return {413, "invalid_request_error"};
    case ErrorCode::kOutOfMemory:
      return {429, "rate_limit_error"};
    case ErrorCode::kUnavailable:
      return {503, "service_unavailable"};
    default:
      return {500, "server_error"};
  }
}

json::value text_or_null(const std::string& text) {
  return text.empty() ? json::value() : json::value(text);
}

}  // namespace

ApiError::ApiError(int status, std::string message, std::string type, std::string param, std::string code)
    : status(status),
      message(std::move(message)),
      type(std::move(type)),
      param(std::move(param)),
      code(std::move(code)) {}

ApiError::ApiError(const Error& error)
    : ApiError(kind_of(error.code).status, error.message, kind_of(error.code).type, error.parameter) {
  if (error.code == ErrorCode::kUnsupported) code = "unsupported_parameter";
  if (error.code == ErrorCode::kOutOfMemory) code = "queue_full";
}

json::object ApiError::to_json() const {
  return {
      {"error", {{"message", message}, {"type", type}, {"param", text_or_null(param)}, {"code", text_or_null(code)}}}};
}

http::Response ApiError::to_response(const http::Headers& headers) const {
  http::Response response = http::Response::json(status, json_text(to_json()));
  for (const auto& [name, value] : headers) response.headers.set(name, value);
  if (status == 503 || status == 429) response.headers.add("Retry-After", "1");
  if (status == 401) response.headers.add("WWW-Authenticate", "Bearer");
  return response;
}

}  // namespace cachalot::openai
