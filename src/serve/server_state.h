#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "config/end_report.h"
#include "serve/metrics.h"
#include "serve/rank_board.h"

// What a server answers at GET /state, from before its model is loaded until its end; for supervisors, `status` and
// probes. Open to all, as /metrics is: it holds no prompts, keys, command lines, paths or messages of errors.
//
//   {"version": 1, "kind": "server", "phase": "loading", "percent": 40, "failure": null,
//    "running": 0, "waiting": 0, "kv_usage_percent": 0,
//    "ranks": [{"rank": 0, "phase": "loading", "percent": 37, "failure": null, "host": "node1", "pid": 4711,
//               "report": null}, ...],
//    "epoch": 1, "healing": false, "counts": null}
//
// A phase is starting, forming (waits for other ranks), loading, ready, draining or failed; then "failure" is
// {"code": "out_of_memory", "rank": 3}: the kind of the error, and the rank that it is about where it is about one.
// "ranks" are those of this replica; their "report" has numbers of what each holds and did, once it has loaded.
// "healing": the replica lacks a rank that is to come back, and its requests wait.
// "counts" are of all requests, once it serves.
namespace cachalot {

std::string_view name_of(RankPhase phase);  // "loading"

struct StateFailure {
  ErrorCode code = ErrorCode::kInternal;
  int rank = -1;  // -1: about none
};

struct StateOfRank {
  int rank = 0;  // of its group
  RankPhase phase = RankPhase::kStarting;
  int percent = 0;
  std::optional<StateFailure> failure;
  std::string host;
  int64_t pid = 0, resident_bytes = 0;
  std::optional<RankReport> report;
};

struct ServerState {
  RankPhase phase = RankPhase::kStarting;
  std::optional<StateFailure> failure;
  int num_running = 0, num_waiting = 0;  // requests
  int kv_usage_percent = 0;              // 100: all blocks are used
  uint32_t epoch = 0;                    // of its group; 0: it has none yet
  bool is_healing = false;
  std::optional<ServerCounts> counts;  // once it serves; of what is told tokens are read back
  std::vector<StateOfRank> ranks;

  int percent() const;  // of all ranks together
};

std::string to_json(const ServerState& state);

// Of another process, which is not trusted: numbers out of their ranges, ranks beyond `most_ranks`, long or unprintable
// text are an error or cut. The error says what is wrong.
Result<ServerState> parse_server_state(std::string_view text, size_t most_ranks);

}  // namespace cachalot
