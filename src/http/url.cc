#include "http/url.h"

#include <algorithm>

#include "base/text.h"

namespace cachalot::http {

std::string Url::authority() const {
  const std::string name = host.find(':') == host.npos ? host : "[" + host + "]";
  return port == 80 ? name : fmt::format("{}:{}", name, port);
}

Result<Url> parse_url(std::string_view text) {
  const auto bad = [&](std::string_view finding) {
    return make_error(ErrorCode::kInvalidArgument, "the address \"{}\" {}; one looks like http://host:8000/path", text,
                      finding);
  };
  constexpr std::string_view kScheme = "http://";
  if (text.starts_with("https://")) return bad("wants TLS, which is not spoken here");
  if (!text.starts_with(kScheme)) return bad("does not begin with http://");
  if (std::ranges::any_of(text, [](unsigned char c) { return c <= ' ' || c == 0x7f; })) return bad("has a space in it");
  std::string_view authority = text.substr(kScheme.size());
  Url url;
  if (const auto end = authority.find_first_of("/?#"); end != authority.npos) {
    std::string_view target = authority.substr(end);
    target = target.substr(0, target.find('#'));
    url.target = target.starts_with('/') ? std::string(target) : "/" + std::string(target);
    authority = authority.substr(0, end);
  }
  if (authority.find('@') != authority.npos) return bad("holds a user name, which is not supported");
  std::string_view port;
  if (authority.starts_with('[')) {
    const auto end = authority.find(']');
    if (end == authority.npos) return bad("has an IPv6 address without its closing bracket");
    url.host = authority.substr(1, end - 1);
    port = authority.substr(end + 1);
  } else {
    const auto colon = authority.find(':');
    url.host = authority.substr(0, colon);
    if (colon != authority.npos) port = authority.substr(colon);
  }
  if (url.host.empty()) return bad("names no host");
  if (!port.empty()) {
    url.port = port[0] == ':' ? parse_number<uint16_t>(port.substr(1)).value_or(0) : 0;
    if (url.port == 0) return bad("has no valid port");
  }
  return url;
}

}  // namespace cachalot::http
