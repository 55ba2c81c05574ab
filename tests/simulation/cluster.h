#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "scheduler/fake_model_test_util.h"
#include "serve/replica.h"
#include "simulation/world.h"

namespace cachalot::simulation {

// How a cluster is laid out and what it is to live through; all of it follows from a seed.
struct Layout {
  int dp_size = 1, tp_size = 1;
  bool expert_parallel = true;
  int num_hosts = 1;

  bool spans_replicas() const { return expert_parallel && dp_size > 1; }
  int group_size() const { return (spans_replicas() ? dp_size : 1) * tp_size; }
  int host_of(int replica) const { return 1 + replica % num_hosts; }  // clients and router are on host 0
};

struct Asked {
  int id = 0;
  Duration arrival{};
  std::vector<TokenId> prompt;
  int max_tokens = 1;
  bool is_streamed = true;
  std::optional<Duration> leaves;  // the client goes away so long after it asked
};

struct Fault {
  enum class Kind {
    kKill,         // a rank
    kStop,         // a rank, for a while
    kHostDies,     // with all on it, for a while
    kHostIsCut,    // from all others, for a while
    kOneWayIsCut,  // from one host to another, for a while
    kConnection,   // breaks
    kTerminate,    // a replica is told to end, and does what it has
  };
  Kind kind{};
  Duration at{}, length{};
  int rank = 0, host = 0, other_host = 0;
  std::string text() const;
};

struct Scenario {
  uint64_t seed = 0;
  Layout layout;
  SchedulerOptions scheduler;
  QueueLimits queue;
  bool has_odd_replica = false;  // the first gives other bits
  bool keeps_answers = true;     // the router, so that another replica may go on with them
  std::vector<Asked> requests;
  std::vector<Fault> faults;
  Duration length{};  // then all faults are over

  std::string text() const;
};

// As long as a test can wait, or as a cluster lives for a while.
struct Scale {
  Duration length = 20s;
  int num_requests = 40, num_faults = 3, max_ranks = 8;
};
Scenario make_scenario(uint64_t seed, const Scale& scale);

// What runs saw, added up: that they meet what they are about.
struct Tally {
  uint64_t requests = 0, answered = 0, failed = 0, left = 0, rounds = 0, steps = 0, losses = 0, starts = 0,
           preemptions = 0, prefix_hits = 0, takeovers = 0, switches = 0, events = 0;
  double seconds = 0;
  void operator+=(const Tally& other);
  std::string text() const;
};

struct Outcome {
  std::optional<std::string> violation;
  Tally tally;
  std::deque<std::string> history;
};
Outcome simulate(const Scenario& scenario, bool keep_history);

// The scenario with as few faults and requests as still end in a violation.
Scenario shortest(Scenario scenario);

}  // namespace cachalot::simulation
