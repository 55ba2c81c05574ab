#include "http/message.h"

#include <algorithm>
#include <boost/beast/http/status.hpp>
#include <charconv>
#include <ostream>  // boost::core::string_view needs it whole

#include "base/text.h"

namespace cachalot::http {

namespace {

char to_lower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c;
}

bool is_control(char c) {
  return static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
}

// Ends the first line, and the head.
void append_fields(const Headers& headers, std::string& head) {
  head += "\r\n";
  for (const auto& [name, value] : headers) {
    head += name;
    head += ": ";
    std::ranges::transform(value, std::back_inserter(head),
                           [](char c) { return is_control(c) && c != '\t' ? ' ' : c; });
    head += "\r\n";
  }
  head += "\r\n";
}

}  // namespace

bool equal_ignoring_case(std::string_view a, std::string_view b) {
  return std::ranges::equal(a, b, {}, to_lower, to_lower);
}

void Headers::set(std::string name, std::string value) {
  erase(name);
  add(std::move(name), std::move(value));
}

void Headers::erase(std::string_view name) {
  std::erase_if(fields_, [&](const auto& field) { return equal_ignoring_case(field.first, name); });
}

std::optional<std::string_view> Headers::find(std::string_view name) const {
  for (const auto& [field, value] : fields_)
    if (equal_ignoring_case(field, name)) return value;
  return std::nullopt;
}

Response Response::text(int status, std::string body) {
  return {status, {{"Content-Type", "text/plain; charset=utf-8"}}, std::move(body)};
}

Response Response::json(int status, std::string body) {
  return {status, {{"Content-Type", "application/json"}}, std::move(body)};
}

std::string_view reason_phrase(int status) {
  const auto phrase = boost::beast::http::obsolete_reason(static_cast<boost::beast::http::status>(status));
  return {phrase.data(), phrase.size()};
}

std::optional<std::string> percent_decode(std::string_view text) {
  std::string decoded;
  decoded.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      decoded += text[i];
      continue;
    }
    unsigned byte = 0;
    if (i + 2 >= text.size()) return std::nullopt;
    const char* digits = text.data() + i + 1;
    const auto parsed = std::from_chars(digits, digits + 2, byte, 16);
    if (parsed.ec != std::errc() || parsed.ptr != digits + 2) return std::nullopt;
    decoded += static_cast<char>(byte);
    i += 2;
  }
  return decoded;
}

std::string format_response_head(int status, const Headers& headers) {
  std::string head = "HTTP/1.1 " + std::to_string(status) + " ";
  head += reason_phrase(status);
  append_fields(headers, head);
  return head;
}

std::string format_request_head(std::string_view method, std::string_view target, const Headers& headers) {
  std::string head(method);
  head += ' ';
  head += target;
  head += " HTTP/1.1";
  append_fields(headers, head);
  return head;
}

std::string Url::authority() const {
  const std::string name = host.find(':') == host.npos ? host : "[" + host + "]";
  return port == (is_https ? 443 : 80) ? name : fmt::format("{}:{}", name, port);
}

Result<Url> parse_url(std::string_view text) {
  const auto bad = [&](std::string_view finding) {
    return make_error(ErrorCode::kInvalidArgument, "the address \"{}\" {}; one looks like http://host:8000/path", text,
                      finding);
  };
  const bool is_https = text.starts_with("https://");
  if (!is_https && !text.starts_with("http://")) return bad("does not begin with http:// or https://");
  if (std::ranges::any_of(text, [](unsigned char c) { return c <= ' ' || c == 0x7f; })) return bad("has a space in it");
  std::string_view authority = text.substr(text.find("://") + 3);
  Url url{.is_https = is_https, .port = static_cast<uint16_t>(is_https ? 443 : 80)};
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

std::string format_sse(std::string_view data, std::string_view event) {
  std::string text;
  text.reserve(data.size() + event.size() + 16);
  if (!event.empty()) text.append("event: ").append(event).append("\n");
  for (;;) {
    const auto end = data.find('\n');
    text.append("data: ").append(data.substr(0, end)).append("\n");
    if (end == data.npos) break;
    data.remove_prefix(end + 1);
  }
  return text += "\n";
}

Result<std::vector<SseEvent>> SseParser::add(std::string_view bytes) {
  std::vector<SseEvent> events;
  while (!bytes.empty()) {
    if (std::exchange(after_cr_, false) && bytes.front() == '\n') {
      bytes.remove_prefix(1);
      continue;
    }
    const auto end = bytes.find_first_of("\r\n");
    line_ += bytes.substr(0, end);
    if (line_.size() + event_.data.size() > max_event_bytes_)
      return make_error(ErrorCode::kCorrupt, "a server-sent event is larger than {} bytes", max_event_bytes_);
    if (end == bytes.npos) break;
    after_cr_ = bytes[end] == '\r';
    bytes.remove_prefix(end + 1);
    end_line(events);
  }
  return events;
}

void SseParser::end_line(std::vector<SseEvent>& events) {
  const std::string line = std::exchange(line_, {});
  if (line.empty()) {
    if (has_data_) events.push_back(std::move(event_));
    event_ = {};
    has_data_ = false;
    return;
  }
  const auto colon = line.find(':');
  const std::string_view field = std::string_view(line).substr(0, colon);
  std::string_view value = colon == line.npos ? std::string_view() : std::string_view(line).substr(colon + 1);
  if (value.starts_with(' ')) value.remove_prefix(1);
  if (field == "data") {
    if (has_data_) event_.data += '\n';
    event_.data += value;
    has_data_ = true;
  } else if (field == "event") {
    event_.event = value;
  }  // a comment (an empty field), "id" and "retry" say nothing that is needed here
}

}  // namespace cachalot::http
