#pragma once

#include <boost/json/object.hpp>
#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "base/error.h"
#include "http/client.h"
#include "openai/api_address.h"
#include "traffic/workload.h"

namespace cachalot {

// When requests come: as vLLM has it, at the mean rate with gamma-distributed gaps, scaled to take num / rate in all.
struct Arrivals {
  double rate = std::numeric_limits<double>::infinity();  // a second; infinite: all at once
  double burstiness = 1;                                  // 1: Poisson; less: bursts; infinite: even
  struct Ramp {
    bool exponential = false;
    double from = 1, to = 1;  // a second
  };
  std::optional<Ramp> ramp;  // instead of the rate
};
// Seconds from the start, ascending.
std::vector<double> arrival_times(const Arrivals& arrivals, size_t count, uint64_t seed);

struct TrafficOptions {
  bool is_chat = false;  // else completions
  std::string model;
  boost::json::object body;  // what every request has beside its prompt
  Arrivals arrivals;
  int max_concurrency = 0;  // conversations at once; 0: no bound
  uint64_t seed = 0;
  std::stop_token stop;  // nothing more is asked, and what is on its way is given up
};

// What a client saw of one request; seconds.
struct Timing {
  std::string error;         // empty: it was answered
  double start = 0;          // since the traffic began
  double queued = 0;         // before that, for its turn among max_concurrency
  double ttft = 0;           // from the start to the first piece of the answer
  double latency = 0;        // to the last
  std::vector<double> gaps;  // between the pieces
  int prompt_tokens = 0, output_tokens = 0;
  std::string text;
};

struct TrafficResult {
  std::vector<Timing> timings;  // conversation by conversation, turn by turn; without those that were given up
  bool is_whole = true;         // nothing was given up
  double seconds = 0;
};

// Asks all, over connections that are kept, and waits for the answers. A conversation that fails asks no further turn.
TrafficResult run_traffic(const http::IoThreads& threads, const http::Client& client, const openai::ApiAddress& address,
                          const TrafficOptions& options, const std::vector<Conversation>& conversations,
                          const std::function<void(size_t num_done)>& on_progress);

}  // namespace cachalot
