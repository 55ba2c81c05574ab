#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

// What the page shows of a cluster, as servers tell it at GET /state (serve/server_state.h) and routers of them.
// Numbers of another process, which are shown and compared, and nothing else.
namespace cachalot::page {

// Observations by size; the last count is of those beyond all bounds.
struct HistogramView {
  std::vector<double> bounds;
  std::vector<uint64_t> counts;
};

struct RankView {
  int64_t rank = 0, pid = 0, percent = 0, resident_bytes = 0, weight_bytes = 0, num_experts = 0, experts_held = 0,
          moe_layers = 0;
  std::string phase, failure, host;
  bool has_report = false;
  uint64_t steps = 0, steps_without_rows = 0;
  uint64_t nanoseconds_computing = 0, nanoseconds_exchanging = 0, nanoseconds_waiting = 0;
  std::vector<uint64_t> layer_rows;  // that its experts computed, by layer
};

struct ServerView {
  std::string phase, failure;
  int64_t epoch = 0;        // of its group; 0: not known
  bool is_healing = false;  // it lacks a rank that is to come back, and its requests wait
  int64_t num_running = 0, num_waiting = 0, kv_usage_percent = 0;
  bool has_counts = false;
  uint64_t prompt_tokens = 0, generation_tokens = 0, prefix_queried_tokens = 0, prefix_hit_tokens = 0;
  HistogramView first_token, between_tokens;  // seconds
  std::vector<RankView> ranks;
};

// One server, as whoever looks at it sees it: itself, or a router.
struct MemberView {
  std::string url, state, reason;  // "up", "down" (also while it drains), "starting"; why it is not up
  int64_t num_in_flight = 0;       // requests that the router has there
  // What is known of one that says no more.
  int64_t num_running = 0, num_waiting = 0;
  double kv_usage = 0;
  std::optional<ServerView> server;
};

struct ClusterView {
  std::string phase;
  std::vector<MemberView> members;
};

// Passes over what it does not know, cuts what is too long, and takes what is missing for zero. The error: it is no
// state at all.
Result<ServerView> parse_server_view(std::string_view state);

}  // namespace cachalot::page
