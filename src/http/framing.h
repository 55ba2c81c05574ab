#pragma once

#include <boost/beast/http/fields.hpp>
#include <boost/beast/http/message.hpp>
#include <boost/system/error_code.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "http/message.h"

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
  AnswerFraming(bool is_http_10, bool head_only, bool keep_alive)
      : is_http_10_(is_http_10), head_only_(head_only), keep_alive_(keep_alive) {}

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
};

// Pages of any address may read the answers (CORS), but for those that say that they are not for others.
void add_origin(Headers& headers);

// Answers OPTIONS, the question that a browser asks before it sends a request with a JSON body.
Response preflight(const Request& request, const std::string& allowed_methods);

}  // namespace cachalot::http
