#pragma once

#include <algorithm>
#include <string>
#include <string_view>

namespace cachalot::router {

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
