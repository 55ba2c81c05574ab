#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"

namespace cachalot::http {

// Header fields in the order in which they came; names compare without case.
class Headers {
 public:
  Headers() = default;
  Headers(std::initializer_list<std::pair<std::string, std::string>> fields) : fields_(fields) {}

  void add(std::string name, std::string value) { fields_.emplace_back(std::move(name), std::move(value)); }
  // Replaces all fields of that name.
  void set(std::string name, std::string value);
  void erase(std::string_view name);
  // The first field of that name.
  std::optional<std::string_view> find(std::string_view name) const;
  bool contains(std::string_view name) const { return find(name).has_value(); }

  auto begin() const { return fields_.begin(); }
  auto end() const { return fields_.end(); }

 private:
  std::vector<std::pair<std::string, std::string>> fields_;
};

struct Request {
  std::string method;
  std::string path;    // the target without its query, percent-decoded, each slash once
  std::string target;  // path and query as they came, for whoever passes the request on
  Headers headers;
  std::string body;
  std::shared_ptr<const void> body_share;  // of the bytes that the server holds of bodies: given back with the request
  std::string peer;                        // "127.0.0.1:53412", "[::1]:53412"
};

struct Response {
  int status = 200;
  Headers headers;
  std::string body;

  static Response text(int status, std::string body);
  static Response json(int status, std::string body);
};

bool equal_ignoring_case(std::string_view a, std::string_view b);
// "Not Found" for 404.
std::string_view reason_phrase(int status);
// "%20" and the like; none if an escape is broken.
std::optional<std::string> percent_decode(std::string_view text);

// The first line and the fields, up to and including the empty line. Control characters in values become spaces, so
// that no value can start a field of its own.
std::string format_response_head(int status, const Headers& headers);
std::string format_request_head(std::string_view method, std::string_view target, const Headers& headers);

// An address: "http://localhost:8000/v1", "https://[::1]:8000".
struct Url {
  bool is_https = false;
  std::string host;  // without the brackets of an IPv6 address
  uint16_t port = 80;
  std::string target = "/";  // path and query

  std::string authority() const;  // host:port, as the Host field has it
};

Result<Url> parse_url(std::string_view text);

// One server-sent event as bytes: its data line by line, and the empty line that ends it.
std::string format_sse(std::string_view data, std::string_view event = {});

struct SseEvent {
  std::string event;  // empty: the default, "message"
  std::string data;
};

// Takes a stream of server-sent events apart, however it is cut into pieces. Lines may end in LF, CR LF or CR.
class SseParser {
 public:
  explicit SseParser(size_t max_event_bytes = 16 << 20) : max_event_bytes_(max_event_bytes) {}

  // The events that are complete with these bytes. An error if one grows too large.
  Result<std::vector<SseEvent>> add(std::string_view bytes);

 private:
  void end_line(std::vector<SseEvent>& events);

  const size_t max_event_bytes_;
  std::string line_;
  bool after_cr_ = false;  // an LF that follows belongs to it
  bool has_data_ = false;
  SseEvent event_;
};

}  // namespace cachalot::http
