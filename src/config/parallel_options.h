#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace cachalot {

// How a model is spread over ranks, and who this process is among them. rank = dp_rank * tp_size + tp_rank.
struct ParallelOptions {
  int tensor_parallel_size = 1;
  int tensor_parallel_rank = 0;  // not 0: a rank that another process started for its replica
  int rank_board_fd = -1;        // of a rank that another process started: where it writes what it does
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
  uint64_t exchange_max_bytes = 0;           // bound of the expert exchange's buffers; 0: as the step's size asks for
  int failure_timeout_ms = 1000;             // silence after which a rank counts as gone
  int start_timeout_seconds = 600;           // how long a rank waits for the others at start
  bool wait_on_failure = false;              // a group that lost a rank: stay and refuse (else exit)

  // With expert parallelism all replicas step together; without, each replica is a group of its own.
  bool spans_replicas() const { return enable_expert_parallel && data_parallel_size > 1; }
  int group_size() const { return (spans_replicas() ? data_parallel_size : 1) * tensor_parallel_size; }
  int group_rank() const {
    return (spans_replicas() ? data_parallel_rank * tensor_parallel_size : 0) + tensor_parallel_rank;
  }
  bool is_leader() const { return tensor_parallel_rank == 0; }
};

}  // namespace cachalot
