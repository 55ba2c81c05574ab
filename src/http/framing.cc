#include "http/framing.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <ctime>
#include <iterator>

namespace cachalot::http {

namespace {

void append_chunk(std::string& wire, std::string_view bytes) {
  if (bytes.empty()) return;  // an empty chunk would be the end
  fmt::format_to(std::back_inserter(wire), "{:x}\r\n", bytes.size());
  wire += bytes;
  wire += "\r\n";
}

bool may_have_body(int status) {
  return status >= 200 && status != 204 && status != 304;
}

}  // namespace

std::string AnswerFraming::head(Exchange::Batch& batch, const std::string& allowed_origin) {
  status = batch.status;
  Headers& headers = batch.headers;
  if (batch.streamed) {
    const bool has_length = headers.contains("Content-Length") || !may_have_body(status);
    chunked = !is_http_10 && !has_length;
    // In HTTP/1.0 the end of the connection is the end of the body.
    keep_alive = keep_alive && (chunked || has_length);
    if (chunked) headers.set("Transfer-Encoding", "chunked");
  } else if (may_have_body(status)) {
    headers.set("Content-Length", std::to_string(batch.pieces.front().bytes.size()));
  }
  if (!keep_alive)
    headers.set("Connection", "close");
  else if (is_http_10)
    headers.set("Connection", "keep-alive");
  add_origin(allowed_origin, headers);
  headers.set("Date", fmt::format("{:%a, %d %b %Y %H:%M:%S GMT}", fmt::gmtime(std::time(nullptr))));
  return format_response_head(status, headers);
}

std::string AnswerFraming::frame(Exchange::Batch& batch, const std::string& allowed_origin) {
  std::string wire;
  if (batch.has_head) wire = head(batch, allowed_origin);
  const bool has_body = !head_only && may_have_body(status);
  for (const Exchange::Piece& piece : batch.pieces) {
    if (!has_body) continue;
    num_body_bytes += piece.bytes.size();
    if (chunked)
      append_chunk(wire, piece.bytes);
    else
      wire += piece.bytes;
  }
  if (batch.ended && chunked && has_body) wire += "0\r\n\r\n";
  return wire;
}

void add_origin(const std::string& allowed_origin, Headers& headers) {
  if (!allowed_origin.empty()) headers.set("Access-Control-Allow-Origin", allowed_origin);
}

Response preflight(const Request& request, const std::string& allowed_methods, const std::string& allowed_origin) {
  Response response{204, {{"Allow", allowed_methods}}, {}};
  if (allowed_origin.empty()) return response;
  response.headers.add("Access-Control-Allow-Methods", allowed_methods);
  response.headers.add("Access-Control-Max-Age", "600");
  if (const auto asked = request.headers.find("Access-Control-Request-Headers"))
    response.headers.add("Access-Control-Allow-Headers", std::string(*asked));
  return response;
}

}  // namespace cachalot::http
