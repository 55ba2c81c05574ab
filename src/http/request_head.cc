#include "http/request_head.h"

#include <fmt/format.h>

#include <boost/beast/http/error.hpp>

#include "http/server.h"

namespace cachalot::http {

namespace bhttp = boost::beast::http;

namespace {

std::string_view to_std(boost::beast::string_view text) {
  return {text.data(), text.size()};
}

}  // namespace

std::optional<RequestFault> check_head(const RequestHead& head) {
  const bool is_http_10 = head.version() == 10;
  if (!is_http_10 && head.version() != 11) return RequestFault{505, "only HTTP/1.0 and HTTP/1.1 are spoken here"};

  const auto num_hosts = head.count(bhttp::field::host);
  if (num_hosts > 1 || (num_hosts == 0 && !is_http_10)) return RequestFault{400, "there must be one Host field"};

  // Beast takes a Transfer-Encoding that does not end in "chunked" for no body at all.
  if (const auto num_codings = head.count(bhttp::field::transfer_encoding); num_codings > 0) {
    if (is_http_10 || head.count(bhttp::field::content_length) > 0 || num_codings > 1)
      return RequestFault{400, "Transfer-Encoding must stand alone, once, in an HTTP/1.1 request"};
    if (!equal_ignoring_case(to_std(head[bhttp::field::transfer_encoding]), "chunked"))
      return RequestFault{501, "the only Transfer-Encoding understood is chunked"};
  }
  if (head.count(bhttp::field::content_length) > 1) return RequestFault{400, "Content-Length may stand only once"};
  if (head.count(bhttp::field::expect) > 0 && !equal_ignoring_case(to_std(head[bhttp::field::expect]), "100-continue"))
    return RequestFault{417, "the only expectation understood is 100-continue"};
  return std::nullopt;
}

RequestFault parse_fault(const boost::system::error_code& error, const ServerOptions& options) {
  if (error == bhttp::error::body_limit)
    return {413, fmt::format("the request's body is larger than {} bytes", options.max_body_bytes)};
  if (error == bhttp::error::header_limit || error == bhttp::error::buffer_overflow)
    return {431, fmt::format("the request's header is larger than {} bytes", options.max_header_bytes)};
  return {400, fmt::format("not a valid HTTP request: {}", error.message())};
}

bool expects_continue(const RequestHead& head) {
  return head.version() == 11 && head.count(bhttp::field::expect) > 0;
}

std::optional<Request> to_request(const RequestHead& head, const std::string& peer) {
  std::string_view target = to_std(head.target());
  if (const auto scheme = target.find("://"); scheme != target.npos && target.starts_with("http")) {
    const auto path = target.find('/', scheme + 3);
    target = path == target.npos ? "/" : target.substr(path);
  }
  const bool is_server_wide = target == "*" && head.method() == bhttp::verb::options;
  if (!target.starts_with('/') && !is_server_wide) return std::nullopt;
  Request request;
  request.method = to_std(head.method_string());
  request.peer = peer;
  target = target.substr(0, target.find('#'));
  request.target = target;
  if (const auto query = target.find('?'); query != target.npos) {
    request.query = target.substr(query + 1);
    target = target.substr(0, query);
  }
  auto path = percent_decode(target);
  if (!path) return std::nullopt;
  request.path = std::move(*path);
  for (const auto& field : head)
    request.headers.add(std::string(to_std(field.name_string())), std::string(to_std(field.value())));
  return request;
}

}  // namespace cachalot::http
