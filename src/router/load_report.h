#pragma once

#include <string_view>

#include "base/error.h"

namespace cachalot::router {

// What a replica says of its load (GET /load).
struct LoadReport {
  int num_running = 0, num_waiting = 0;  // sequences
  double num_pending_tokens = 0;         // that came and are not computed yet
  double kv_usage = 0;                   // used KV blocks; 1: all of them
};

Result<LoadReport> parse_load_report(std::string_view json);

}  // namespace cachalot::router
