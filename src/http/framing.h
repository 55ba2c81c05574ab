#pragma once

#include <string>

#include "http/exchange.h"
#include "http/message.h"

namespace cachalot::http {

// One answer on its way to bytes: decides how its body is delimited, and counts for the access log.
struct AnswerFraming {
  bool is_http_10 = false;
  bool head_only = false;  // a HEAD request
  bool keep_alive = false;
  bool chunked = false;
  int status = 0;
  size_t num_body_bytes = 0;

  // The bytes of a batch.
  std::string frame(Exchange::Batch& batch, const std::string& allowed_origin);

 private:
  std::string head(Exchange::Batch& batch, const std::string& allowed_origin);
};

void add_origin(const std::string& allowed_origin, Headers& headers);

// Answers OPTIONS, the question that a browser asks before it sends a request with a JSON body.
Response preflight(const Request& request, const std::string& allowed_methods, const std::string& allowed_origin);

}  // namespace cachalot::http
