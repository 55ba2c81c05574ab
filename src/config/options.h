#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "config/door_options.h"

namespace cachalot {

enum class DTypeOption { kAuto, kBFloat16, kFloat32 };
enum class ActivationDTypeOption { kAuto, kBf16, kInt8 };
enum class IsaOption { kAuto, kReference, kAvx2, kAvx512 };
enum class SchedulingPolicy { kFcfs, kPriority };

// What one replica's engine is told. Filled from flags (cli/) in one place.
struct EngineOptions {
  std::string model;  // folder
  DTypeOption dtype = DTypeOption::kAuto;
  ActivationDTypeOption activation_dtype = ActivationDTypeOption::kAuto;
  IsaOption isa = IsaOption::kAuto;
  int max_model_len = 0;  // 0: the config's, cut to what the KV memory holds
  int max_num_batched_tokens = 2048;
  int max_num_seqs = 256;
  int block_size = 64;
  int num_scheduler_steps = 1;
  SchedulingPolicy scheduling_policy = SchedulingPolicy::kFcfs;
  bool enable_prefix_caching = true;
  bool prefix_cache_across_roles = false;
  double gpu_memory_utilization = 0.9;
  int num_gpu_blocks_override = 0;    // 0: from memory
  int64_t kv_cache_memory_bytes = 0;  // of each rank; 0: what gpu_memory_utilization leaves
  int threads = 0;                    // 0: the rank's share of cores
  std::optional<uint64_t> seed;       // of requests that bring none; absent: a random one each
};

// What a server allows its clients, and what its log says of them.
struct ServiceOptions {
  int max_logprobs = 20;                                   // alternatives of a token; -1: the whole vocabulary
  int max_num_queued_reqs = 2048;                          // requests that wait; 0: no bound
  int64_t max_num_queued_tokens = 0;                       // tokens of their prompts; 0: 16 times the longest sequence
  int64_t max_stored_response_bytes = int64_t{256} << 20;  // of answers that may be asked for again
  int sse_keep_alive_seconds = 15;                         // of silence, after which a stream sends a comment; 0: none
  bool log_stats = true;                                   // rates, every ten seconds in which there were requests
  bool log_requests = false;                               // one line for each request
};

// Where spans of requests go (telemetry/tracer.h), and under which name.
struct TraceOptions {
  std::string endpoint;                                      // "http://localhost:4318/v1/traces"; empty: nowhere
  std::vector<std::pair<std::string, std::string>> headers;  // of requests to it
  std::string service_name;                                  // empty: cachalot-server or cachalot-router
};

inline constexpr int kMostRedundantExperts = 1 << 14;  // of a layer

// Experts that move while the group runs, as vLLM's EPLB has it.
struct EplbOptions {
  bool enabled = false;
  int num_redundant_experts = 0;                 // slots of a layer beyond one for each expert
  int window_size = 1000, step_interval = 3000;  // steps: whose rows count; from one look at them to the next
  bool log_balancedness = false;
  int log_balancedness_interval = 1;  // steps
  int pace = 8;                       // steps from one look at what is under way to the next
};

// Whose loss at once the others' spare slots have room for.
enum class Survive { kAuto, kNone, kRank, kServer, kNode };
constexpr std::string_view survive_name(Survive survive) {
  constexpr std::array<std::string_view, 5> kNames{"auto", "none", "rank", "server", "node"};
  return kNames[static_cast<size_t>(survive)];
}

// The agents of a group (src/agents), as the command line names them.
struct AgentsOptions {
  std::vector<std::string> addresses;  // "HOST:PORT" of those of all servers, by replica
  bool has_witness = false;            // a router votes, too
  std::string state_dir;               // what this one must not forget; empty: a folder of the run folder
};

// How a model is spread over ranks, and who this process is among them. rank = dp_rank * tp_size + tp_rank.
struct ParallelOptions {
  int tensor_parallel_size = 1;
  int tensor_parallel_rank = 0;  // not 0: a rank that another process started for its replica
  int rank_board_fd = -1;        // of a rank that another process started: where it writes what it does
  int agent_fd = -1;             // of a rank that an agent started: its end of the link (agents/rank_link.h)
  uint64_t process = 0;          // and the id by which the agents know this process
  int num_local_ranks = 0;       // of such a rank: how many share its node; 0: those of its replica
  int local_rank = -1;           // and its place among them; of an agent: that of its first; -1: tensor_parallel_rank
  int data_parallel_size = 1;
  int data_parallel_rank = 0;
  bool enable_expert_parallel = false;  // else each expert's width is split over a replica's ranks

  // Where rank 0 of the group listens and all others find it.
  std::string data_parallel_address = "127.0.0.1";
  uint16_t data_parallel_rpc_port = 29550;
  std::string group_secret_file;             // none: whoever reaches the port may join
  std::string network_interface;             // for traffic between nodes; none: the one that reaches the address above
  std::string transports = "auto";           // auto, or for tests and comparison: shm, ucx
  std::vector<std::string> ucx_environment;  // "UCX_TLS=tcp": the variables of UCX that the environment has
  std::vector<int> visible_devices;          // of this replica on its node; empty: none named
  std::string expert_placement;              // file that says which ranks have which experts; none: evenly
  std::string expert_load;                   // file of rows that chose each expert; none: all as many
  EplbOptions eplb;
  Survive survive = Survive::kAuto;  // the most of none, rank and server that costs the KV cache a tenth
  uint64_t exchange_max_bytes = 0;   // bound of the expert exchange's buffers; 0: as the step's size asks for
  int failure_timeout_ms = 1000;     // silence after which a rank counts as gone
  int start_timeout_seconds = 600;   // how long a rank waits for the others at start
  bool wait_on_failure = false;      // a group that lost a rank: stay and refuse (else exit)
  bool fault_tolerance = false;      // a group that lost a rank goes on, and this process is the parent of its ranks
  AgentsOptions agents;              // of such a group

  // With expert parallelism all replicas step together; without, each replica is a group of its own.
  bool spans_replicas() const { return enable_expert_parallel && data_parallel_size > 1; }
  int group_size() const { return (spans_replicas() ? data_parallel_size : 1) * tensor_parallel_size; }
  int group_rank() const {
    return (spans_replicas() ? data_parallel_rank * tensor_parallel_size : 0) + tensor_parallel_rank;
  }
  bool is_leader() const { return tensor_parallel_rank == 0; }
  bool has_agent() const { return agent_fd >= 0; }
  int local_ranks() const { return num_local_ranks > 0 ? num_local_ranks : tensor_parallel_size; }
};

// What `cachalot router` is told.
struct RouterOptions {
  std::vector<std::string> server_urls;  // of the replicas, in the order of their ranks
  std::string host = "0.0.0.0";
  uint16_t port = 8002;
  std::string model;                  // the name that the replicas serve; empty: whichever
  std::vector<std::string> api_keys;  // any of them opens; none: whatever a client brings is passed on
  std::string server_api_key;         // for the replicas, in place of the client's
  DoorOptions door;
  std::string replica_ca_certs;  // that replicas' certificates are checked by; empty: the system's
  AgentsOptions agents;          // of the group for which this process is the witness
  std::string group_secret_file;
  int failure_timeout_ms = 1000;  // as the ranks'

  // Health. Silence means that a question has no answer for so long; `fall` questions that fail otherwise, or `rise`
  // good answers, change what is thought of a replica.
  std::chrono::milliseconds health_interval{250};
  std::chrono::milliseconds health_timeout{1000};  // as --failure-timeout-ms of the ranks
  int health_fall = 2, health_rise = 2;
  int eject_after_errors = 5;             // answers with a 5xx in a row
  std::chrono::seconds eject_time{5};     // doubled with each time in a row, up to a minute
  std::chrono::seconds slow_start{10};    // over which a replica that came back gets its full share again
  std::chrono::seconds stream_grace{10};  // for a stream that has begun, of a replica that is silent
  // Then, if it answers again: its streams say within 15 s that they live, unless it is another process.
  std::chrono::seconds revival_grace{20};
  // Answers that another replica goes on with: what may be kept for them, of all requests (0: nothing), and how long
  // one may be without a replica.
  size_t takeover_memory = 256 << 20;
  std::chrono::seconds takeover_timeout{60};

  // Limits; 0: none.
  int max_tries = 3;  // replicas that a request is sent to, one after the other, until one of them answers
  int max_in_flight = 16384;
  int max_in_flight_per_replica = 2048;  // well below the connections that a server of ours takes
  int max_connections = 0;               // of clients; 0: as many as the limit of open files allows, up to 32,768
  size_t max_header_bytes = 32 << 10, max_body_bytes = 32 << 20;
  size_t max_body_bytes_in_flight = 1 << 30;  // that are held, of all requests
  std::chrono::milliseconds connect_timeout{2000};
  std::chrono::seconds answer_timeout{3600};  // until the first byte, and between two of them
  std::chrono::seconds header_timeout{15}, body_timeout{120}, write_timeout{60}, idle_timeout{75};  // of clients

  int prefix_entries = 1 << 16;  // remembered beginnings of prompts
  int io_threads = 1;
  int drain_seconds = 30;
  bool log_requests = false;  // one line for each request
  TraceOptions traces;
};

}  // namespace cachalot
