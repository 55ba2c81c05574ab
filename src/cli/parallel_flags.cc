#include "cli/parallel_flags.h"

#include "base/log.h"
#include "config/environment.h"

namespace cachalot {

void add_parallel_flags(CLI::App& app, ParallelOptions& options) {
  options.ucx_environment = environment_variables("UCX_");
  app.add_option("-t,--tensor-parallel-size", options.tensor_parallel_size,
                 "Ranks of one replica: heads and dense layers are divided among them")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  // For the ranks that a process starts: its own command line with these behind it.
  app.add_option("--tensor-parallel-rank", options.tensor_parallel_rank)->group("")->take_last();
  app.add_option("--rank-board", options.rank_board_fd)->group("")->take_last();
  app.add_option("--data-parallel-size", options.data_parallel_size, "Replicas")
      ->check(CLI::Range(1, 4096))
      ->envname("VLLM_DP_SIZE")
      ->capture_default_str();
  app.add_option("--data-parallel-rank", options.data_parallel_rank, "Which replica this is")
      ->check(CLI::NonNegativeNumber)
      ->envname("VLLM_DP_RANK")
      ->take_last()
      ->capture_default_str();
  app.add_option("--data-parallel-address", options.data_parallel_address,
                 "Where replica 0 waits for all ranks (it listens there)")
      ->envname("VLLM_DP_MASTER_IP")
      ->take_last()
      ->capture_default_str();
  app.add_option("--data-parallel-rpc-port", options.data_parallel_rpc_port, "The port there")
      ->check(CLI::Range(1, 65535))
      ->envname("VLLM_DP_MASTER_PORT")
      ->take_last()
      ->capture_default_str();
  app.add_flag("--enable-expert-parallel", options.enable_expert_parallel,
               "Spread the experts over all ranks of all replicas, which then step together (off: each expert's width "
               "is divided over a replica's ranks, and replicas run apart)");
  app.add_option("--group-secret-file", options.group_secret_file,
                 "File whose content every rank must have; without it, whoever reaches the port may join")
      ->check(CLI::ExistingFile);
  app.add_option("--network-interface", options.network_interface,
                 "Interface for traffic between nodes; the one that reaches --data-parallel-address if absent")
      ->envname("GLOO_SOCKET_IFNAME");
  app.add_option("--transports", options.transports,
                 "auto: shared memory inside a node and UCX between nodes; shm or ucx: only that one")
      ->check(CLI::IsMember({"auto", "shm", "ucx"}))
      ->capture_default_str();
  app.add_option(
         "--visible-devices", options.visible_devices,
         "Numbers of devices, separated by commas, as many as the replica has ranks; only their count is looked at")
      ->delimiter(',')
      ->envname("TOPS_VISIBLE_DEVICES");
  app.add_option("--exchange-max-bytes", options.exchange_max_bytes,
                 "Bound of each buffer of the expert exchange; 0: twice what evenly spread experts need")
      ->envname("ECCL_ALLTOALLV_MAXSIZE")
      ->capture_default_str();
  app.add_option("--failure-timeout-ms", options.failure_timeout_ms, "Silence after which a rank counts as gone")
      ->check(CLI::Range(50, 600'000))
      ->capture_default_str();
  app.add_option("--start-timeout", options.start_timeout_seconds, "Seconds that a rank waits for the others at start")
      ->check(CLI::Range(1, 86'400))
      ->capture_default_str();
  app.add_flag("--wait-on-failure", options.wait_on_failure,
               "When a rank is lost, stay and refuse requests until somebody stops this (off: exit, so that a "
               "supervisor starts anew)");
  app.add_option_function<std::string>(
         "--sequence-parallel",
         [](const std::string& value) {
           if (value == "0")
             log::info("VLLM_GCU_ENABLE_SEQUENCE_PARALLEL=0 changes nothing: sequence parallelism is always on");
         })
      ->envname("VLLM_GCU_ENABLE_SEQUENCE_PARALLEL")
      ->group("");
}

Status check_parallel_options(const ParallelOptions& options) {
  if (options.data_parallel_rank >= options.data_parallel_size) {
    return make_parameter_error("--data-parallel-rank",
                                "--data-parallel-rank {}: there are {} replicas (--data-parallel-size), 0 to {}",
                                options.data_parallel_rank, options.data_parallel_size, options.data_parallel_size - 1);
  }
  if (options.tensor_parallel_rank < 0 || options.tensor_parallel_rank >= options.tensor_parallel_size) {
    return make_parameter_error("--tensor-parallel-rank",
                                "--tensor-parallel-rank {}: there are {} ranks (--tensor-parallel-size)",
                                options.tensor_parallel_rank, options.tensor_parallel_size);
  }
  if (!options.visible_devices.empty() && std::ssize(options.visible_devices) != options.tensor_parallel_size) {
    return make_parameter_error(
        "--visible-devices",
        "--visible-devices (TOPS_VISIBLE_DEVICES) names {} devices for {} ranks (--tensor-parallel-size)",
        options.visible_devices.size(), options.tensor_parallel_size);
  }
  return {};
}

void add_ignored_flags(CLI::App& app) {
  struct Ignored {
    const char* name;
    const char* why;
    bool takes_value;
  };
  static constexpr Ignored kIgnored[] = {
      {"--trust-remote-code", "no code is ever loaded from a model's folder", false},
      {"--quantization", "the model's files say how each weight is stored", true},
      {"--load-format", "weights are always safetensors", true},
      {"--tokenizer", "the model's folder holds the tokenizer", true},
      {"--swap-space", "nothing is swapped: a preempted sequence is computed again", true},
      {"--device", "the program has one device, the CPU", true},
      {"--distributed-executor-backend", "ranks are always processes", true},
      {"--kv-cache-dtype", "the KV cache has the compute type (--dtype)", true},
      {"--max-seq-len-to-capture", "there are no graphs to capture", true},
      {"--enforce-eager", "there are no graphs to capture", false},
      {"--disable-log-requests", "requests are not logged", false},
      {"--disable-log-stats", "statistics are at /metrics, not in the log", false},
      {"--enable-chunked-prefill", "long prompts are always cut into pieces", false},
      {"--disable-custom-all-reduce", "there is one all-reduce", false},
      {"--multi-step-stream-outputs", "every round's tokens are streamed", true},
  };
  for (const Ignored& flag : kIgnored) {
    if (app.get_option_no_throw(flag.name)) continue;  // it means something to this command
    const auto tell = [&flag] { log::info("{} is accepted and changes nothing: {}", flag.name, flag.why); };
    if (flag.takes_value) {
      app.add_option_function<std::string>(flag.name, [tell](const std::string&) { tell(); })->group("");
    } else {
      app.add_flag_callback(flag.name, tell)->group("");
    }
  }
}

}  // namespace cachalot
