#include "http/framing.h"

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <boost/beast/http/error.hpp>
#include <charconv>
#include <ctime>
#include <iterator>

#include "base/text.h"
#include "http/server.h"

namespace cachalot::http {

namespace bhttp = boost::beast::http;

namespace {

std::string_view to_std(boost::beast::string_view text) {
  return {text.data(), text.size()};
}

bool may_have_body(int status) {
  return status >= 200 && status != 204 && status != 304;
}

std::string date_now() {
  thread_local std::time_t last = 0;
  thread_local std::string text;
  if (const std::time_t now = std::time(nullptr); now != last) {
    text = fmt::format("{:%a, %d %b %Y %H:%M:%S GMT}", fmt::gmtime(now));
    last = now;
  }
  return text;
}

// A slash at the end of a path says nothing.
void drop_last_slash(std::string& path) {
  if (path.size() > 1 && path.ends_with('/')) path.pop_back();
}

std::string without_doubled_slashes(std::string_view path) {
  std::string single(path);
  const auto rest = std::ranges::unique(single, [](char a, char b) { return a == '/' && b == '/'; });
  single.erase(rest.begin(), rest.end());
  return single;
}

bool has_dot_segment(std::string_view path) {
  for (size_t begin = 0; begin < path.size();) {
    const size_t end = std::min(path.find('/', begin), path.size());
    const std::string_view segment = path.substr(begin, end - begin);
    if (segment == "." || segment == "..") return true;
    begin = end + 1;
  }
  return false;
}

}  // namespace

std::optional<RequestFault> HeadScanner::scan(std::string_view bytes) {
  if (bytes.starts_with('\x16'))
    return RequestFault{400, "not a valid HTTP request: it begins as TLS (https) does; plain HTTP is spoken here"};
  for (;;) {
    const size_t newline = bytes.find('\n', line_begin_);
    if (newline == bytes.npos) return std::nullopt;
    const std::string_view line = bytes.substr(line_begin_, newline - line_begin_);
    if (auto fault = check_line(line)) return fault;
    line_begin_ = newline + 1;
    if (line.size() > 1) continue;
    end_ = line_begin_;
    return std::nullopt;
  }
}

std::optional<RequestFault> HeadScanner::check_line(std::string_view line) const {
  const auto invalid = [](std::string_view finding) {
    return RequestFault{400, fmt::format("not a valid HTTP request: {}", finding)};
  };
  if (line.empty() || line.find('\r') != line.size() - 1)
    return invalid("a line of its head does not end with CR LF, once");
  if (line.find('\0') != line.npos) return invalid("its head holds a zero byte");
  const bool is_folded = line_begin_ > 0 && (line.starts_with(' ') || line.starts_with('\t'));
  if (is_folded) return invalid("a field of its head goes on in the next line, which is obsolete");
  return std::nullopt;
}

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

boost::system::error_code check_answer_head(const AnswerHead& head) {
  const unsigned status = head.result_int();
  if (status < 100 || status == 101 || status > 599) return bhttp::error::bad_status;  // 101: nobody asks for it
  const auto num_codings = head.count(bhttp::field::transfer_encoding);
  if (num_codings > 1 ||
      (num_codings > 0 && !equal_ignoring_case(to_std(head[bhttp::field::transfer_encoding]), "chunked")))
    return bhttp::error::bad_transfer_encoding;
  if (head.count(bhttp::field::content_length) + num_codings > 1) return bhttp::error::bad_content_length;
  return {};
}

RequestFault parse_fault(const boost::system::error_code& error, const ServerOptions& options) {
  if (error == bhttp::error::body_limit)
    return {413, fmt::format("the request's body is larger than {} bytes", options.max_body_bytes)};
  if (error == bhttp::error::header_limit || error == bhttp::error::buffer_overflow)
    return {431, fmt::format("the request's header is larger than {} bytes", options.max_header_bytes)};
  if (error == bhttp::error::bad_chunk_extension)
    return {400, "not a valid HTTP request: chunks may have no extensions here"};
  return {400, fmt::format("not a valid HTTP request: {}", error.message())};
}

bool expects_continue(const RequestHead& head) {
  return head.version() == 11 && head.count(bhttp::field::expect) > 0;
}

std::expected<Request, RequestFault> to_request(const RequestHead& head, const std::string& peer) {
  std::string_view target = to_std(head.target());
  const auto refused = [&](std::string_view finding) {
    return std::unexpected(RequestFault{400, fmt::format("the target {} {}", quoted(target), finding)});
  };
  if (const auto scheme = target.find("://"); scheme != target.npos && target.starts_with("http")) {
    const auto path = target.find('/', scheme + 3);
    target = path == target.npos ? "/" : target.substr(path);
  }
  const bool is_server_wide = target == "*" && head.method() == bhttp::verb::options;
  if (!target.starts_with('/') && !is_server_wide) return refused("must be a path");
  target = target.substr(0, target.find('#'));
  const auto query = std::min(target.find('?'), target.size());
  Request request;
  request.method = to_std(head.method_string());
  request.peer = peer;
  request.target = without_doubled_slashes(target.substr(0, query));
  const auto path = percent_decode(request.target);
  if (!path) return refused("must be a path; an escape in it is broken");
  const bool has_control = std::ranges::any_of(*path, [](unsigned char c) { return c < 0x20 || c == 0x7f; });
  if (has_control) return refused("holds a control character");
  request.path = without_doubled_slashes(*path);
  drop_last_slash(request.path);
  // Whoever reads them otherwise than the one before him guards the wrong door.
  if (has_dot_segment(request.path)) return refused("holds . or .. as a part of its path");
  request.target += target.substr(query);
  for (const auto& field : head)
    request.headers.add(std::string(to_std(field.name_string())), std::string(to_std(field.value())));
  return request;
}

std::string AnswerFraming::head(int status, Headers headers, std::optional<size_t> body_size,
                                const ServerOptions& options) {
  status_ = status;
  has_body_ = !head_only_ && may_have_body(status);
  is_event_stream_ = headers.find("Content-Type").value_or("").starts_with("text/event-stream");
  if (body_size) {
    if (may_have_body(status)) headers.set("Content-Length", std::to_string(*body_size));
  } else {
    // What is said in a stream's place when it breaks off would not fit.
    if (is_event_stream_) headers.erase("Content-Length");
    const auto length = headers.find("Content-Length");
    const bool has_length = length.has_value() || !may_have_body(status);
    if (length && has_body_) std::from_chars(length->data(), length->data() + length->size(), num_missing_);
    is_chunked_ = !is_http_10_ && !has_length;
    // In HTTP/1.0 the end of the connection is the end of the body.
    keep_alive_ = keep_alive_ && (is_chunked_ || has_length);
    if (is_chunked_) headers.set("Transfer-Encoding", "chunked");
  }
  if (!keep_alive_)
    headers.set("Connection", "close");
  else if (is_http_10_)
    headers.set("Connection", "keep-alive");
  if (const auto idle = std::chrono::duration_cast<std::chrono::seconds>(options.idle_timeout).count();
      keep_alive_ && idle > 0)
    headers.set("Keep-Alive", fmt::format("timeout={}", idle));
  if (!origin_.empty()) add_origin(headers, origin_, options.door.cors);
  headers.set("Date", date_now());
  return format_response_head(status, headers);
}

std::string AnswerFraming::part(std::string_view bytes) {
  if (!has_body_ || bytes.empty()) return {};  // an empty chunk would be the end
  num_body_bytes_ += bytes.size();
  num_missing_ -= std::min(num_missing_, bytes.size());
  if (!is_chunked_) return std::string(bytes);
  std::string chunk;
  chunk.reserve(bytes.size() + 16);
  fmt::format_to(std::back_inserter(chunk), "{:x}\r\n", bytes.size());
  chunk += bytes;
  chunk += "\r\n";
  return chunk;
}

std::string AnswerFraming::end() {
  has_ended_ = true;
  return is_chunked_ && has_body_ ? "0\r\n\r\n" : "";
}

void add_origin(Headers& headers, const std::string& origin, const CorsOptions& cors) {
  if (origin.empty() || headers.contains("Cross-Origin-Resource-Policy") || cors.origins.empty()) return;
  const bool for_all = std::ranges::find(cors.origins, "*") != cors.origins.end() && !cors.credentials;
  if (!for_all) headers.add("Vary", "Origin");
  if (!cors.allows(origin)) return;
  headers.set("Access-Control-Allow-Origin", for_all ? "*" : origin);
  if (cors.credentials) headers.set("Access-Control-Allow-Credentials", "true");
}

Response preflight(const Request& request, const std::string& allowed_methods, const CorsOptions& cors) {
  Response response{204, {{"Allow", allowed_methods}}, {}};
  if (!cors.allows(std::string(request.headers.find("Origin").value_or("")))) return response;
  const auto is_any = [](const std::vector<std::string>& words) {
    return std::ranges::find(words, "*") != words.end();
  };
  response.headers.add("Access-Control-Allow-Methods",
                       is_any(cors.methods) ? allowed_methods : fmt::format("{}", fmt::join(cors.methods, ", ")));
  response.headers.add("Access-Control-Max-Age", "600");
  const std::string asked(request.headers.find("Access-Control-Request-Headers").value_or(""));
  const std::string headers = is_any(cors.headers) ? asked : fmt::format("{}", fmt::join(cors.headers, ", "));
  if (!headers.empty()) response.headers.add("Access-Control-Allow-Headers", headers);
  return response;
}

}  // namespace cachalot::http
