#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/error.h"

namespace cachalot::http {

// An http:// address: "http://localhost:8000/v1", "http://[::1]:8000".
struct Url {
  std::string host;  // without the brackets of an IPv6 address
  uint16_t port = 80;
  std::string target = "/";  // path and query

  std::string authority() const;  // host:port, as the Host field has it
};

Result<Url> parse_url(std::string_view text);

}  // namespace cachalot::http
