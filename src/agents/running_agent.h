#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "agents/agent.h"
#include "agents/agent_network.h"
#include "base/error.h"
#include "base/process.h"
#include "config/end_report.h"
#include "config/options.h"

namespace cachalot::agents {

struct RunningAgentOptions {
  AgentOptions agent;
  AgentNetworkOptions network;  // a group of one server has no addresses
  std::string state_dir;        // empty: a group of one server, which needs to remember nothing
  // How to start a rank, which is known by this id and finds its agent at this descriptor.
  std::function<ProcessOptions(int rank, uint64_t process, int agent_fd)> command;
  // On the agent's thread: how a rank has ended, and whether it had been ready before.
  std::function<void(int rank, const EndReport& end, bool was_ready)> rank_ended = {};
};

// Of a server's agent, or of the witness (whose number is behind the last server's). settings: those that must be equal
// on all servers. Errors: an address; a secret that cannot be read; no folder.
Result<RunningAgentOptions> agent_options(const AgentsOptions& flags, int server, int ranks_per_server,
                                          int failure_timeout_ms, const std::string& secret_file,
                                          const std::vector<std::pair<std::string, std::string>>& settings);

// An agent in a process: its thread has the clock, the connections to the other agents, the links to the ranks, and
// starts, kills and reaps these; another one writes its state. The ranks die with this object, and with the process.
class RunningAgent {
 public:
  // Errors: another process has the folder, it holds what is not this agent's, or the agent cannot listen.
  static Result<std::unique_ptr<RunningAgent>> start(RunningAgentOptions options);
  ~RunningAgent();  // kills the ranks that still run

  // Asks all ranks to end, by SIGTERM, and starts none again.
  void end_ranks();
  // Whether none runs, within this time. After end_ranks() the other agents know it by then.
  bool ranks_end_within(std::chrono::milliseconds patience);
  GroupView view() const;
  Status confirm_lost(const std::vector<int>& servers);

 private:
  struct Impl;
  explicit RunningAgent(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// Of a person: asks the agent there, on the calling thread.
Result<OperatorAnswer> ask_agent(const AgentAddress& agent, const std::string& secret, const OperatorRequest& request,
                                 std::chrono::milliseconds patience);

}  // namespace cachalot::agents
