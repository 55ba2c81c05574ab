#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "core/request.h"
#include "core/step.h"

namespace cachalot {

// How far a request is that has no token yet.
struct RequestProgress {
  int queue_place = 0;          // of those that wait; 1: the next. 0: it runs
  int num_computed_tokens = 0;  // of its prompt, found in the cache or computed
  bool operator==(const RequestProgress&) const = default;
};

// When a request came to what, of the steady clock; nothing: it did not come to it.
struct RequestTimes {
  using Time = std::chrono::steady_clock::time_point;
  std::optional<Time> admission, first_token, last_token;  // admission: when its prompt was first computed on
};

// What a request's owner hears at the end of a round.
struct RequestOutput {
  RequestId id = 0;
  std::vector<SampledToken> tokens;           // new ones
  std::vector<SampledToken> prompt_logprobs;  // new ones; complete before the first token
  int num_cached_tokens = 0;                  // of the prompt, found in the prefix cache
  std::optional<RequestProgress> progress;    // if it wants to hear, and something has changed; then nothing else
  FinishReason finish = FinishReason::kNone;
  RequestTimes times;                           // finish != kNone
  std::string error;                            // finish == kError
  ErrorCode error_code = ErrorCode::kInternal;  // kInvalidArgument: what it asks for cannot be
  bool is_own_fault = false;                    // an error of this request alone, which it would meet on any server
};

// The load of a replica, for /metrics and the router.
struct ReplicaStats {
  int num_running = 0, num_waiting = 0;
  bool is_healing = false;  // a rank of the replica, or experts, are lost and to come back: its requests wait meanwhile
  int64_t num_waiting_tokens = 0;  // of their prompts
  int64_t num_pending_tokens = 0;  // of all requests, that are known and not computed yet
  double kv_usage = 0;             // used blocks / blocks
  uint64_t num_preemptions = 0;
  uint64_t prefix_queried_tokens = 0, prefix_hit_tokens = 0;
  uint64_t prompt_tokens = 0, generation_tokens = 0, num_rounds = 0, num_steps = 0;
};

// What the API needs of an engine; serve/ implements it, tests fake it. Thread-safe.
class GenerationService {
 public:
  virtual ~GenerationService() = default;
  // Called on the engine's thread, in order, the last time with finish != kNone; must not block.
  using Listener = std::function<void(RequestOutput)>;

  virtual RequestId next_id() = 0;
  // kInvalidArgument: can never run (too long); kUnavailable: draining, or the engine has failed; kOutOfMemory: too
  // many wait already. On error the listener is never called.
  virtual Status submit(Request request, Listener listener) = 0;
  // The request stops by the end of the current round and its listener hears kAborted; unknown or finished ids are
  // ignored.
  virtual void abort(RequestId id) = 0;
  virtual ReplicaStats stats() const = 0;
  // True while requests are taken and the engine steps.
  virtual bool healthy() const = 0;
};

}  // namespace cachalot
