#include "serve/parent.h"

#include <algorithm>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "agents/running_agent.h"
#include "base/log.h"
#include "base/ports.h"
#include "base/stop_signals.h"
#include "engine/memory_plan.h"
#include "serve/rank_board.h"
#include "serve/rank_group.h"
#include "weights/model_files.h"

namespace cachalot {
namespace {

// What starting again does not mend.
bool is_lasting(const EndReport& end) {
  if (end.out_of_memory) return true;
  if (!end.error) return false;
  switch (end.error->code) {
    case ErrorCode::kUnavailable:
    case ErrorCode::kDeadlineExceeded:
    case ErrorCode::kCancelled:
    case ErrorCode::kInternal:
      return false;
    default:
      return true;
  }
}

// The first end of a rank that no other start would mend, of a server of which none has ever been ready.
class FirstFault {
 public:
  // On the agent's thread.
  void rank_ended(int rank, const EndReport& end, bool was_ready) {
    const std::lock_guard lock(mutex_);
    has_been_ready_ = has_been_ready_ || was_ready;
    if (has_been_ready_ || fault_ || !is_lasting(end)) return;
    fault_ = Error{end.error ? end.error->code : ErrorCode::kOutOfMemory, fmt::format("rank {} {}", rank, end.text()),
                   end.error ? end.error->parameter : ""};
  }
  std::optional<Error> fault() const {
    const std::lock_guard lock(mutex_);
    return fault_;
  }

 private:
  mutable std::mutex mutex_;  // guards what follows
  bool has_been_ready_ = false;
  std::optional<Error> fault_;
};

std::vector<std::string> rank_words(const ServeOptions& options, int tp_rank, uint64_t process, int agent_fd,
                                    int board_fd, uint16_t port) {
  const ParallelOptions& parallel = options.parallel;
  std::vector<std::string> words = options.command_line;
  for (std::string word : {fmt::format("--tensor-parallel-rank={}", tp_rank),
                           fmt::format("--data-parallel-rank={}", parallel.data_parallel_rank),
                           fmt::format("--local-ranks={}", parallel.local_ranks()),
                           fmt::format("--local-rank={}", std::max(parallel.local_rank, 0) + tp_rank),
                           fmt::format("--rank-board={}", board_fd), fmt::format("--agent-fd={}", agent_fd),
                           fmt::format("--process={}", process), fmt::format("--port={}", port)})
    words.push_back(std::move(word));
  return words;
}

// Running answers have their time; a second signal ends them.
void drain(agents::RunningAgent& agent, StopSignals& signals, std::chrono::seconds patience) {
  const auto deadline = std::chrono::steady_clock::now() + patience;
  agent.end_ranks();
  while (!agent.ranks_end_within(std::chrono::milliseconds(100)) && std::chrono::steady_clock::now() < deadline)
    if (signals.wait_for(std::chrono::milliseconds(0)) != 0) agent.end_ranks();
}

}  // namespace

Status run_parent(const ServeOptions& options) {
  const ParallelOptions& parallel = options.parallel;
  const int num_servers = parallel.spans_replicas() ? parallel.data_parallel_size : 1;
  if (num_servers > 1 && std::ssize(parallel.agents.addresses) != num_servers) {
    return make_parameter_error("--agents",
                                "--agents names {} agents; with --enable-fault-tolerance each of the {} replicas has "
                                "one, HOST:PORT",
                                parallel.agents.addresses.size(), num_servers);
  }
  log::set_who("agent");
  ASSIGN_OR_RETURN(const ModelFiles files, ModelFiles::open(options.engine.model));
  RETURN_IF_ERROR(plan_rank_memory(options.engine, parallel, files.config(), files, RankResources{}));
  const ExpertPlacement::Shape experts = placement_shape(files.config(), 1);
  ASSIGN_OR_RETURN(const auto board,
                   RankBoard::create(parallel.group_size(), static_cast<size_t>(experts.num_layers) *
                                                                static_cast<size_t>(experts.num_experts)));
  // The leader listens at the same port however often it is started.
  std::optional<KeptPort> kept;
  if (options.port == 0) {
    ASSIGN_OR_RETURN(kept, KeptPort::keep(options.host));
  }
  const uint16_t port = kept ? kept->port() : options.port;

  AgentsOptions flags = parallel.agents;
  if (num_servers == 1) flags = {};  // it decides alone, and nothing of it outlives its ranks
  ASSIGN_OR_RETURN(auto agent_options,
                   agents::agent_options(flags, num_servers > 1 ? parallel.data_parallel_rank : 0,
                                         parallel.tensor_parallel_size, parallel.failure_timeout_ms,
                                         parallel.group_secret_file, group_settings(options.engine, parallel)));
  FirstFault first_fault;
  StopSignals signals(options.end_time());
  agent_options.command = [&](int rank, uint64_t process, int agent_fd) {
    const int tp_rank = rank % parallel.tensor_parallel_size;
    return ProcessOptions{.words = rank_words(options, tp_rank, process, agent_fd, board->fd(), port),
                          .program = "/proc/self/exe"};
  };
  agent_options.rank_ended = [&](int rank, const EndReport& end, bool was_ready) {
    first_fault.rank_ended(rank, end, was_ready);
    if (first_fault.fault()) signals.wake();
  };
  ASSIGN_OR_RETURN(const auto agent, agents::RunningAgent::start(std::move(agent_options)));
  const int signal = signals.wait();
  if (auto fault = first_fault.fault()) return std::unexpected(std::move(*fault));
  log::info("{}: no new requests; running ones have {} s", signal_name(signal), options.drain_seconds);
  drain(*agent, signals, options.end_time());
  log::info("stopped");
  return {};
}

}  // namespace cachalot
