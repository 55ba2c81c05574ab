#pragma once

#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "simulation/world.h"

// The agents of a group: the real ones (src/agents), over a network that delays, loses, doubles and reorders, and disks
// that are slow and end in the middle of a write. Ranks are toys that enter epochs and serve while they may.
namespace cachalot::simulation {

struct AgentFault {
  enum class Kind {
    kRankEnds,
    kRankStops,         // for a while, or until it is killed for it
    kAgentEnds,         // and its ranks with it; it is started again
    kFolderIsLost,      // the same, and its state is gone
    kFolderDamaged,     // the same, and its state cannot be read: a person removes it
    kAgentEndsWriting,  // the same, while it writes
    kAgentStops,        // its ranks go on
    kServerStops,       // with its ranks
    kServerIsCut,
    kOneWayIsCut,
    kPairIsCut,
    kServerIsMute,  // and deaf for a second or so
    kDiskIsSlow,
    kNetworkIsBad,  // everywhere
  };
  Kind kind{};
  Duration at{}, length{};
  int server = 0, other = 0, rank = 0;
  std::string text() const;
};

struct AgentScenario {
  uint64_t seed = 0;
  int num_servers = 1, ranks_per_server = 1;
  bool has_witness = false;
  std::vector<AgentFault> faults;
  Duration length{};  // then all faults are over
  std::string text() const;
};
AgentScenario make_agent_scenario(uint64_t seed, Duration length, int num_faults);

struct AgentTally {
  uint64_t epochs = 0, events = 0;
  double seconds = 0, serving = 0;  // serving: the part of the time with faults in which an epoch did
  void operator+=(const AgentTally& other);
  std::string text() const;
};

struct AgentOutcome {
  std::optional<std::string> violation;
  AgentTally tally;
  std::deque<std::string> history;
};
AgentOutcome simulate_agents(const AgentScenario& scenario, bool keep_history);
AgentScenario shortest(AgentScenario scenario);

// Histories by name; each says what it was to be where it is not.
struct NamedHistory {
  std::string_view name;
  AgentOutcome (*live)(uint64_t seed, bool keep_history);
};
const std::vector<NamedHistory>& named_histories();

}  // namespace cachalot::simulation
