#include "openai/api_error.h"

#include <algorithm>

#include "config/json.h"

namespace cachalot::openai {

namespace json = boost::json;

namespace {

struct StatusAndType {
  int status;
  const char* type;
};

StatusAndType kind_of(ErrorCode code) {
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

// Anthropic's words.
const char* anthropic_type(int status) {
  switch (status) {
    case 401:
      return "authentication_error";
    case 403:
      return "permission_error";
    case 404:
      return "not_found_error";
    case 413:
      return "request_too_large";
    case 429:
      return "rate_limit_error";
    case 503:
      return "overloaded_error";
    default:
      return status < 500 ? "invalid_request_error" : "api_error";
  }
}

}  // namespace

ErrorForm error_form(std::string_view path) {
  constexpr std::string_view kMessages = "/v1/messages";
  const bool is_anthropic =
      path.starts_with(kMessages) && (path.size() == kMessages.size() || path[kMessages.size()] == '/');
  return is_anthropic ? ErrorForm::kAnthropic : ErrorForm::kOpenAi;
}

ErrorForm error_form(const http::Request& request) {
  const bool is_shared = request.path == "/v1/models" || request.path.starts_with("/v1/models/");
  return is_shared && request.headers.contains("anthropic-version") ? ErrorForm::kAnthropic : error_form(request.path);
}

json::value text_or_null(const std::string& text) {
  return text.empty() ? json::value() : json::value(text);
}

std::unexpected<ApiError> invalid_request(std::string message, std::string param, std::string code) {
  return std::unexpected(ApiError(400, std::move(message), "invalid_request_error", std::move(param), std::move(code)));
}

ApiError::ApiError(int status, std::string message, std::string type, std::string param, std::string code)
    : status(status),
      message(std::move(message)),
      type(std::move(type)),
      param(std::move(param)),
      code(std::move(code)) {}

ApiError::ApiError(const Error& error)
    : ApiError(kind_of(error.code).status, error.message, kind_of(error.code).type, error.parameter) {
  is_final = error.code == ErrorCode::kInternal;
  if (error.code == ErrorCode::kUnsupported) code = "unsupported_parameter";
  if (error.code == ErrorCode::kOutOfMemory) code = "queue_full";
}

json::object ApiError::to_json(ErrorForm form, std::string_view request_id) const {
  if (form == ErrorForm::kAnthropic) {
    json::object error{{"type", anthropic_type(status)}, {"message", message}};
    if (!code.empty()) error["details"] = {{"error_code", code}};
    return {{"type", "error"}, {"error", std::move(error)}, {"request_id", text_or_null(std::string(request_id))}};
  }
  return {
      {"error", {{"message", message}, {"type", type}, {"param", text_or_null(param)}, {"code", text_or_null(code)}}}};
}

http::Response ApiError::to_response(const http::Headers& headers, ErrorForm form) const {
  http::Response response =
      http::Response::json(status, json_text(to_json(form, headers.find("X-Request-Id").value_or(""))));
  for (const auto& [name, value] : headers) response.headers.set(name, value);
  if (status == 503 || status == 429) response.headers.add("Retry-After", "1");
  if (is_final) response.headers.set("X-Should-Retry", "false");
  if (status == 401) response.headers.add("WWW-Authenticate", "Bearer");
  return response;
}

std::string ApiError::to_event(ErrorForm form, std::string_view request_id) const {
  return http::format_sse(json_text(to_json(form, request_id)), form == ErrorForm::kAnthropic ? "error" : "");
}

std::string_view api_key_of(const http::Request& head) {
  constexpr std::string_view kScheme = "Bearer ";
  std::string_view given = head.headers.find("Authorization").value_or("");
  if (given.size() >= kScheme.size() && http::equal_ignoring_case(given.substr(0, kScheme.size()), kScheme))
    return given.substr(kScheme.size());
  return head.headers.find("x-api-key").value_or("");
}

}  // namespace cachalot::openai
