#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace cachalot::http {

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
