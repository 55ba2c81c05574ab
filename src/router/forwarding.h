#pragma once

#include <algorithm>
#include <string>
#include <string_view>

#include "http/message.h"

namespace cachalot::router {

// The fields of a client's request as a replica gets them: without those that concern only the connection that they
// came over, with X-Forwarded-For and -Proto, and with the request's id. `server_api_key`, if any, replaces the
// client's.
http::Headers request_fields(const http::Request& request, const std::string& request_id,
                             const std::string& server_api_key, bool is_https = false);

// The fields of a replica's answer as the client gets them; Content-Length stays.
http::Headers response_fields(const http::Headers& answer, const std::string& request_id);

// "10.0.0.7" of "10.0.0.7:53412", "::1" of "[::1]:53412".
std::string_view address_of(std::string_view peer);

// Holds back the unfinished end of a stream of server-sent events, so that whoever reads on sees whole events only, and
// what is said after a break stands by itself.
class EventBoundary {
 public:
  // The whole events that these bytes complete, as they came.
  std::string pass(std::string bytes) {
    const size_t end = last_boundary(bytes);
    if (end == 0 && held_.size() + bytes.size() <= kMostHeld) {
      held_ += bytes;
      return {};
    }
    std::string rest = end == 0 ? std::string() : bytes.substr(end);
    if (end != 0) bytes.resize(end);
    if (!held_.empty()) bytes.insert(0, held_);
    held_ = std::move(rest);
    return bytes;
  }
  // Whether whole events are nothing but comments, which a server sends to say that it is still there.
  static bool are_comments(std::string_view events) {
    for (size_t begin = 0; begin < events.size();) {
      const size_t end = std::min(events.find('\n', begin), events.size());
      const std::string_view line = events.substr(begin, end - begin);
      if (!line.empty() && line != "\r" && !line.starts_with(':')) return false;
      begin = end + 1;
    }
    return true;
  }
  // What is left at the end.
  std::string take_rest() { return std::move(held_); }

 private:
  static constexpr size_t kLongestEnd = 4;      // "\r\n\r\n"
  static constexpr size_t kMostHeld = 1 << 20;  // of one event; a larger one passes in parts

  // Behind the last empty line; 0: there is none. Its bytes may themselves come in two pieces.
  size_t last_boundary(std::string_view bytes) const {
    if (const size_t inside = find_in(bytes); inside > 0) return inside;
    const std::string before = held_.substr(held_.size() - std::min(held_.size(), kLongestEnd - 1));
    const size_t across = find_in(before + std::string(bytes.substr(0, kLongestEnd - 1)));
    return across > before.size() ? across - before.size() : 0;
  }
  static size_t find_in(std::string_view bytes) {
    const size_t plain = bytes.rfind("\n\n"), with_returns = bytes.rfind("\r\n\r\n");
    const size_t after_plain = plain == bytes.npos ? 0 : plain + 2;
    return std::max(after_plain, with_returns == bytes.npos ? 0 : with_returns + 4);
  }

  std::string held_;
};

}  // namespace cachalot::router
