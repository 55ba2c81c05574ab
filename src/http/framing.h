#pragma once

#include <algorithm>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/error.hpp>
#include <boost/beast/http/fields.hpp>
#include <boost/beast/http/message.hpp>
#include <boost/system/error_code.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "config/door_options.h"
#include "http/message.h"
#include "http/stream.h"

// Where a message begins and ends: what makes a request's head fit to be served, and how an answer is delimited.
namespace cachalot::http {

struct ServerOptions;

struct RequestFault {
  int status = 400;
  std::string message;
};

// Looks for the end of a head in what has come of it, before Beast reads it: Beast forgives lines that other servers
// read otherwise (folded ones above all), and sees a fault only when the whole head is there.
class HeadScanner {
 public:
  // `bytes`: all that has come, from the head's first one on.
  std::optional<RequestFault> scan(std::string_view bytes);
  size_t end() const { return end_; }  // behind the empty line; 0: it has not come

 private:
  std::optional<RequestFault> check_line(std::string_view line) const;

  size_t line_begin_ = 0, end_ = 0;
};

using RequestHead = boost::beast::http::request_header<boost::beast::http::fields>;

// What makes a head that Beast could parse unfit to be served: above all anything that another server on the way could
// read as a different length of the body (request smuggling).
std::optional<RequestFault> check_head(const RequestHead& head);

using AnswerHead = boost::beast::http::response_header<boost::beast::http::fields>;

// The same for an answer to a client of ours: its status must be one that HTTP knows, and plain where its body ends.
boost::system::error_code check_answer_head(const AnswerHead& head);

// The status for a request that Beast could not parse, or that is larger than the options allow.
RequestFault parse_fault(const boost::system::error_code& error, const ServerOptions& options);

bool expects_continue(const RequestHead& head);

// The head as a Request without its body; or why its target is no path.
std::expected<Request, RequestFault> to_request(const RequestHead& head, const std::string& peer);

// One answer on its way to bytes: decides how its body is delimited, and counts for the access log.
class AnswerFraming {
 public:
  // `origin`: of the page that asks; empty: none.
  AnswerFraming(bool is_http_10, bool head_only, bool keep_alive, std::string origin = {})
      : is_http_10_(is_http_10), head_only_(head_only), keep_alive_(keep_alive), origin_(std::move(origin)) {}

  // Takes the fields that are the server's business from the options. For a whole answer, with the size of its body.
  std::string head(int status, Headers headers, std::optional<size_t> body_size, const ServerOptions& options);
  std::string part(std::string_view bytes);
  // What ends the body; after it, whether all of it was there.
  std::string end();
  bool is_complete() const { return num_missing_ == 0; }

  // The connection ends with this answer; before head(), which says so.
  void close() { keep_alive_ = false; }
  bool keep_alive() const { return keep_alive_; }
  bool has_begun() const { return status_ != 0; }
  bool has_ended() const { return has_ended_; }
  bool is_chunked() const { return is_chunked_; }
  bool is_event_stream() const { return is_event_stream_; }
  int status() const { return status_; }
  size_t num_body_bytes() const { return num_body_bytes_; }

 private:
  const bool is_http_10_, head_only_;
  bool keep_alive_, has_body_ = true, is_chunked_ = false, is_event_stream_ = false, has_ended_ = false;
  int status_ = 0;
  size_t num_body_bytes_ = 0;
  size_t num_missing_ = 0;  // of a body whose length was announced
  const std::string origin_;
};

// Lets the page that asks read the answer (CORS) if it may, and the answer does not say that it is not for others.
void add_origin(Headers& headers, const std::string& origin, const CorsOptions& cors);

// Answers OPTIONS, the question that a browser asks before it sends a request with a JSON body.
Response preflight(const Request& request, const std::string& allowed_methods, const CorsOptions& cors);

// More of what a parser wants, at most so many bytes at once, through the buffer.
template <class Parser>
awaitable<boost::system::error_code> read_into(Stream& stream, boost::beast::flat_buffer& buffer, Parser& parser,
                                               size_t most_bytes) {
  for (;;) {
    boost::system::error_code error;
    if (buffer.size() > 0)
      buffer.consume(parser.put(buffer.data(), error));
    else
      error = boost::beast::http::error::need_more;
    if (error != boost::beast::http::error::need_more) co_return error;
    const size_t room = buffer.max_size() - buffer.size();
    if (room == 0) co_return boost::beast::http::error::buffer_overflow;
    const auto [read_error, num_read] = co_await stream.read_some(buffer.prepare(std::min(most_bytes, room)));
    buffer.commit(num_read);
    if (!read_error) continue;
    if (read_error != boost::asio::error::eof) co_return read_error;
    if (!parser.got_some()) co_return boost::beast::http::error::end_of_stream;
    parser.put_eof(error);
    co_return error;
  }
}

}  // namespace cachalot::http
