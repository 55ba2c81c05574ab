#include "openai/api_address.h"

#include <boost/json.hpp>

#include "base/text.h"

namespace cachalot::openai {

namespace json = boost::json;

namespace {

// An address that was copied from a request's has one of these behind its base.
std::string base_of(std::string url) {
  if (url.find("://") == url.npos) url = "http://" + url;
  url = url.substr(0, url.find_first_of("?#"));
  constexpr std::string_view kEndings[] = {"/",       "/chat/completions", "/completions", "/models",
                                           "/health", "/metrics",          "/v1"};
  const size_t scheme = url.find("://") + 3;
  for (bool cut = true; cut;) {
    cut = false;
    for (const std::string_view ending : kEndings) {
      if (!url.ends_with(ending) || url.size() - ending.size() <= scheme) continue;
      url.resize(url.size() - ending.size());
      cut = true;
      if (ending == "/v1") return url + "/v1";
    }
  }
  return url + "/v1";
}

}  // namespace

ApiAddress::ApiAddress(std::string url, std::string api_key)
    : url_(base_of(std::move(url))), api_key_(std::move(api_key)) {}

Result<http::ClientRequest> ApiAddress::request(std::string method, std::string_view path, std::string body) const {
  http::ClientRequest request{.method = std::move(method), .body = std::move(body)};
  ASSIGN_OR_RETURN(request.url, http::parse_url(url_ + std::string(path)));
  if (!request.body.empty()) request.headers.set("Content-Type", "application/json");
  if (!api_key_.empty()) request.headers.set("Authorization", "Bearer " + api_key_);
  return request;
}

Result<std::string> ApiAddress::choose_model(const http::Client& client, const std::string& wanted) const {
  ASSIGN_OR_RETURN(http::ClientRequest models_request, request("GET", "/models"));
  ASSIGN_OR_RETURN(const http::Response response, client.fetch(std::move(models_request)));
  const bool has_no_list = response.status == 404 || response.status == 405;  // as some gateways
  if (!wanted.empty() && (response.status == 200 || has_no_list)) return wanted;
  if (response.status != 200) return std::unexpected(refusal(response.status, response.body));
  boost::system::error_code error;
  const json::value models = json::parse(response.body, error);
  const json::string* name = error ? nullptr : find_text(models, "/data/0/id");
  if (!name) return make_error(ErrorCode::kUnavailable, "{}/models names no model; say which one to ask for", url_);
  return std::string(*name);
}

const json::string* find_text(const json::value& value, const char* pointer) {
  boost::system::error_code error;
  const json::value* found = value.find_pointer(pointer, error);
  return found ? found->if_string() : nullptr;
}

Error refusal(int status, std::string_view body) {
  boost::system::error_code error;
  const json::value value = json::parse(body, error);
  const json::string* message = error ? nullptr : find_text(value, "/error/message");
  return {ErrorCode::kUnavailable,
          fmt::format("the server answers {}: {}", status,
                      message ? escaped(std::string_view(*message)) : escaped(body, 300)),
          {}};
}

}  // namespace cachalot::openai
