#pragma once

#include <boost/json/value.hpp>
#include <string>
#include <string_view>

#include "base/error.h"
#include "http/client.h"

namespace cachalot::openai {

// Where a server that speaks OpenAI's API is, and what opens it: the client's side.
class ApiAddress {
 public:
  // The URL as a person types it: with or without "http://" and "/v1". The key may be empty.
  ApiAddress(std::string url, std::string api_key);

  const std::string& url() const { return url_; }  // "http://HOST:PORT/v1"
  // `path` follows /v1; a body is JSON.
  Result<http::ClientRequest> request(std::string method, std::string_view path, std::string body = {}) const;
  // Makes sure that the server is there; the name of the model to ask for: `wanted`, or the server's first if that is
  // empty. Blocks.
  Result<std::string> choose_model(const http::Client& client, const std::string& wanted) const;

 private:
  std::string url_, api_key_;
};

// The text at a JSON pointer ("/choices/0/text"), if everything on the way is there.
const boost::json::string* find_text(const boost::json::value& value, const char* pointer);

// What a server said instead of an answer: the message of OpenAI's error format, or whatever it is.
Error refusal(int status, std::string_view body);

}  // namespace cachalot::openai
