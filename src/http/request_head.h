#pragma once

#include <boost/beast/http/fields.hpp>
#include <boost/beast/http/message.hpp>
#include <boost/system/error_code.hpp>
#include <optional>
#include <string>

#include "http/message.h"

namespace cachalot::http {

using RequestHead = boost::beast::http::request_header<boost::beast::http::fields>;

struct ServerOptions;

struct RequestFault {
  int status = 400;
  std::string message;
};

// What makes a head that Beast could parse unfit to be served: above all anything that another server on the way could
// read as a different length of the body (request smuggling).
std::optional<RequestFault> check_head(const RequestHead& head);

// The status for a request that Beast could not parse, or that is larger than the options allow.
RequestFault parse_fault(const boost::system::error_code& error, const ServerOptions& options);

bool expects_continue(const RequestHead& head);

// The head as a Request without its body; none if the target is not a path.
std::optional<Request> to_request(const RequestHead& head, const std::string& peer);

}  // namespace cachalot::http
