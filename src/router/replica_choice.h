#pragma once

#include <cstddef>
#include <optional>
#include <span>
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

// What is known of one replica when a request has to go somewhere.
struct Candidate {
  bool is_open = false;          // it takes requests, and may be sent this one
  LoadReport report;             // its last word on its load,
  int num_unreported = 0;        // requests sent to it since then less those that ended since then,
  double unreported_tokens = 0;  // and their prompts
  double known_tokens = 0;       // of this request's prompt, that it has computed lately
  double ramp = 1;               // part of its share that it may get
};

// The work, in tokens, after which a new request with so many prompt tokens would have its first token there: what
// waits to be computed, a part of what the running sequences will still generate, and the prompt less what is known of
// it.
double predicted_work(const Candidate& candidate, double num_prompt_tokens);

// The open candidate with the least predicted work; among equals the first from `start` on, round the list. None: no
// candidate is open.
std::optional<size_t> choose_replica(std::span<const Candidate> candidates, double num_prompt_tokens, size_t start);

}  // namespace cachalot::router
