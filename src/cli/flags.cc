#include "cli/flags.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <sstream>

#include "base/log.h"
#include "base/text.h"
#include "config/environment.h"
#include "config/json.h"
#include "http/message.h"

namespace cachalot {

namespace {

// "k": thousands, "K": times 1024.
std::optional<int64_t> multiplier_of(char suffix) {
  const std::string_view decimal = "kmgt", binary = "KMGT";
  const size_t thousands = decimal.find(suffix), kibis = binary.find(suffix);
  int64_t multiplier = 1;
  if (kibis != binary.npos) return int64_t{1} << (10 * (kibis + 1));
  if (thousands == decimal.npos) return std::nullopt;
  for (size_t idx = 0; idx <= thousands; idx++) multiplier *= 1000;
  return multiplier;
}

// The flag as a person gave it, or the variable of the environment that stands in its place.
std::string source_of(const CLI::Option& option, const std::string& text) {
  const std::string name = option.get_lnames().empty() ? option.get_name() : "--" + option.get_lnames().front();
  const std::string& variable = option.get_envname();
  const bool is_of_variable = !variable.empty() && !text.empty() && text == environment_variable(variable.c_str());
  return is_of_variable ? fmt::format("{} ({})", name, variable) : name;
}

[[noreturn]] void refuse(const CLI::Option& option, const std::string& text, const std::string& right) {
  throw CLI::ValidationError(fmt::format("{} {}: must be {}", source_of(option, text), cachalot::quoted(text), right));
}

}  // namespace

std::optional<int64_t> parse_whole_number(std::string_view text) {
  if (const std::optional<int64_t> value = parse_number<int64_t>(text)) return value;
  const std::optional<int64_t> multiplier = text.empty() ? std::nullopt : multiplier_of(text.back());
  if (!multiplier) return std::nullopt;
  text.remove_suffix(1);
  if (text.find_first_not_of("0123456789.") != text.npos) return std::nullopt;
  const std::optional<double> number = parse_real_number(text);
  const bool is_binary = *multiplier % 1000 != 0;
  if (!number || (is_binary && text.contains('.'))) return std::nullopt;
  const double product = *number * static_cast<double>(*multiplier);
  if (product > 9e18) return std::nullopt;
  return static_cast<int64_t>(product);
}

std::optional<double> parse_real_number(std::string_view text) {
  const std::optional<double> value = parse_number<double>(text);
  return value && std::isfinite(*value) ? value : std::nullopt;
}

namespace flag_values {

int64_t read_whole(const CLI::Option& option, const std::string& text, const WholeRange& range) {
  for (const auto& [word, value] : range.words) {
    if (word == text) return value;
  }
  const std::optional<int64_t> value = parse_whole_number(text);
  if (value && *value >= range.least && *value <= range.most) return *value;
  std::string right = range.most >= std::numeric_limits<int32_t>::max()
                          ? fmt::format("a whole number from {} on", range.least)
                          : fmt::format("a whole number from {} to {}", range.least, range.most);
  for (const auto& [word, meaning] : range.words) right += fmt::format(", or {}", word);
  refuse(option, text, right);
}

double read_real(const CLI::Option& option, const std::string& text, const RealRange& range) {
  const std::optional<double> value = parse_real_number(text);
  if (value && *value >= range.least && *value <= range.most) return *value;
  refuse(option, text,
         range.most == std::numeric_limits<double>::max()
             ? fmt::format("a number from {} on", range.least)
             : fmt::format("a number from {} to {}", range.least, range.most));
}

std::string default_text(double value) {
  return fmt::format("{}", value);
}

}  // namespace flag_values

CLI::Option* add_whole_list(CLI::App& app, const std::string& name, std::vector<int>& target, WholeRange range,
                            const std::string& help) {
  const auto self = std::make_shared<const CLI::Option*>();
  CLI::Option* option = app.add_option(
      name,
      [&target, self, range = std::move(range)](const CLI::results_t& results) {
        target.clear();
        for (const std::string& text : results)
          target.push_back(static_cast<int>(flag_values::read_whole(**self, text, range)));
        return true;
      },
      help);
  *self = option;
  return option->delimiter(',')->expected(1, -1)->type_name("N,...")->default_str(
      fmt::format("{}", fmt::join(target, ",")));
}

void add_isa_flag(CLI::App& app, EngineOptions& options) {
  add_choice(app, "--isa", options.isa,
             {{"auto", IsaOption::kAuto},
              {"reference", IsaOption::kReference},
              {"avx2", IsaOption::kAvx2},
              {"avx512", IsaOption::kAvx512}},
             "Highest instruction set to use: auto, reference, avx2 or avx512");
}

// OpenTelemetry's variables hold what its flags do not: "api-key=secret,other=x%20y".
void add_trace_flags(CLI::App& app, TraceOptions& traces) {
  app.add_option("--otlp-traces-endpoint", traces.endpoint,
                 "OTLP receiver that gets a trace of each request, http://HOST:4318/v1/traces; absent: no traces")
      ->envname("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT");
  traces.service_name = environment_variable("OTEL_SERVICE_NAME");
  std::string fields = environment_variable("OTEL_EXPORTER_OTLP_TRACES_HEADERS");
  if (fields.empty()) fields = environment_variable("OTEL_EXPORTER_OTLP_HEADERS");
  for (std::istringstream list(fields); std::getline(list, fields, ',');)
    if (const size_t equals = fields.find('='); equals != fields.npos)
      traces.headers.emplace_back(
          trimmed(std::string_view(fields).substr(0, equals)),
          http::percent_decode(trimmed(std::string_view(fields).substr(equals + 1))).value_or(""));
}

void add_engine_flags(CLI::App& app, EngineOptions& options) {
  app.add_option("--model", options.model, "Folder of the model: config.json, safetensors, tokenizer.json")->required();
  add_choice(app, "--dtype", options.dtype,
             {{"auto", DTypeOption::kAuto},
              {"bfloat16", DTypeOption::kBFloat16},
              {"float32", DTypeOption::kFloat32},
              {"float", DTypeOption::kFloat32}},
             "Compute and KV cache type: auto (bfloat16), bfloat16 or float32 (exact comparison)");
  add_choice(app, "--activation-dtype", options.activation_dtype,
             {{"auto", ActivationDTypeOption::kAuto},
              {"bf16", ActivationDTypeOption::kBf16},
              {"int8", ActivationDTypeOption::kInt8}},
             "What linears are fed: auto (int8 for int4 weights, else fp32), bf16 (never quantized) or int8");
  add_isa_flag(app, options);
  add_whole(app, "--threads", options.threads, {.most = 4096}, "Compute threads; 0: one a core");
  add_whole(app, "--max-model-len", options.max_model_len, {.words = {{"auto", 0}, {"-1", 0}}},
            "Longest sequence, prompt and answer; 0: the model's, cut to what the KV cache holds");
  add_whole(app, "--max-num-batched-tokens", options.max_num_batched_tokens, {.least = 1}, "Most tokens of a step");
  add_whole(app, "--max-num-seqs", options.max_num_seqs, {.least = 1}, "Most sequences that run at once");
  add_whole(app, "--block-size", options.block_size, {.least = 1, .most = 4096}, "Tokens of a KV cache block");
  add_whole(app, "--num-scheduler-steps", options.num_scheduler_steps, {.least = 1, .most = 1024},
            "Decode steps of one scheduling decision");
  add_choice(app, "--scheduling-policy", options.scheduling_policy,
             {{"fcfs", SchedulingPolicy::kFcfs}, {"priority", SchedulingPolicy::kPriority}},
             "fcfs, or priority (a lower `priority` of the request is served first, and preempts)");
  add_switch(app, "enable-prefix-caching", options.enable_prefix_caching, "Reuse the KV blocks of equal prefixes (on)");
  app.add_flag("--prefix-cache-across-roles", options.prefix_cache_across_roles,
               "Find an answer again that comes back inside the next prompt, though its bits may differ from a fresh "
               "computation (off)");
  add_real(app, "--gpu-memory-utilization", options.gpu_memory_utilization, {0.01, 1.0},
           "Share of the device's memory to use");
  add_whole(app, "--num-gpu-blocks-override", options.num_gpu_blocks_override, {}, "KV blocks; 0: as memory allows");
  add_whole(app, "--kv-cache-memory-bytes", options.kv_cache_memory_bytes,
            {.most = std::numeric_limits<int64_t>::max()},
            "Bytes of each rank's KV cache, in place of what --gpu-memory-utilization leaves; 0: that");
  add_whole(app, "--seed", options.seed, {.most = std::numeric_limits<int64_t>::max()},
            "Seed of requests that bring none; absent: a random one each");
}

void add_transports_flag(CLI::App& app, std::string& transports) {
  app.add_option("--transports", transports,
                 "auto: shared memory inside a node and UCX between nodes; shm or ucx: only that one")
      ->check(CLI::IsMember({"auto", "shm", "ucx"}))
      ->capture_default_str();
}

CLI::Option* add_group_secret_flag(CLI::App& app, std::string& file) {
  return app
      .add_option("--group-secret-file", file,
                  "File whose content every rank must have; without it, whoever reaches the port may join")
      ->check(CLI::ExistingFile);
}

CLI::Option* add_agents_flag(CLI::App& app, AgentsOptions& agents) {
  return app
      .add_option("--agents", agents.addresses,
                  "HOST:PORT of the agents of all servers of the group, by replica, separated by commas: where each "
                  "listens, and the others find it")
      ->delimiter(',');
}

CLI::Option* add_state_dir_flag(CLI::App& app, AgentsOptions& agents) {
  return app.add_option(
      "--state-dir", agents.state_dir,
      "Folder in which an agent keeps what it has decided with the others (a few KB), below the run folder if it is "
      "relative; absent: one by the addresses of --agents");
}

namespace {

// vLLM's, of version 0.32.
Status read_eplb_config(const std::string& text, EplbOptions& options) {
  ASSIGN_OR_RETURN(const boost::json::object config, parse_json_object(text, "--eplb-config"));
  static constexpr std::string_view kKeys[] = {
      "window_size", "step_interval", "num_redundant_experts", "log_balancedness", "log_balancedness_interval",
      "use_async",   "policy",        "communicator"};
  for (const auto& [key, value] : config)
    if (std::ranges::find(kKeys, std::string_view(key)) == std::end(kKeys))
      return make_error(ErrorCode::kInvalidArgument, "--eplb-config: there is no key {}; there are {}",
                        cachalot::quoted(std::string(key)), fmt::join(kKeys, ", "));
  JsonKeys keys(config, "--eplb-config");
  constexpr double kMost = 1e9;
  keys.optional("num_redundant_experts", options.num_redundant_experts, 0, kMostRedundantExperts);
  keys.optional("window_size", options.window_size, 1, kMost);
  keys.optional("step_interval", options.step_interval, 1, kMost);
  keys.optional("log_balancedness", options.log_balancedness);
  keys.optional("log_balancedness_interval", options.log_balancedness_interval, 1, kMost);
  bool use_async = true;
  std::string policy = "default", communicator;
  keys.optional("use_async", use_async);
  keys.optional("policy", policy);
  keys.optional("communicator", communicator);
  RETURN_IF_ERROR(keys.status());
  if (!use_async) log::warn("--eplb-config: use_async false: experts are copied in the background all the same");
  if (policy != "default")
    log::warn("--eplb-config: policy {}: there is one, as vLLM's default", cachalot::quoted(policy));
  if (!communicator.empty())
    log::warn("--eplb-config: communicator {}: experts come from a rank of the node, or the files",
              cachalot::quoted(communicator));
  return {};
}

void add_eplb_flags(CLI::App& app, ParallelOptions& options) {
  add_switch(app, "enable-eplb", options.eplb.enabled,
             "Place experts anew while the group runs, by what their rows are (off)");
  app.add_option_function<std::string>(
         "--eplb-config",
         [&options](const std::string& text) {
           if (const Status read = read_eplb_config(text, options.eplb); !read)
             throw CLI::ValidationError(read.error().message);
         },
         "JSON with num_redundant_experts (slots of each layer beyond one for each expert, for copies of the busiest), "
         "window_size and step_interval (steps: of whose rows, and how often, experts are placed anew), "
         "log_balancedness and log_balancedness_interval")
      ->type_name("JSON");
  options.survive = Survive::kNone;  // who goes on after a loss has another default
  add_choice(app, "--survive", options.survive,
             {{"auto", Survive::kAuto},
              {"none", Survive::kNone},
              {"rank", Survive::kRank},
              {"server", Survive::kServer},
              {"node", Survive::kNode}},
             "Empty slots that each rank keeps, so that the experts of one rank, one server's ranks or one node's find "
             "place on the others when these are lost; auto: the most of none, rank and server that leaves the KV "
             "cache nine tenths of its blocks, the default with --enable-fault-tolerance");
}

}  // namespace

void add_parallel_flags(CLI::App& app, ParallelOptions& options) {
  options.ucx_environment = environment_variables("UCX_");
  add_whole(app, "-t,--tensor-parallel-size", options.tensor_parallel_size, {.least = 1, .most = 1024},
            "Ranks of one replica: heads and dense layers are divided among them");
  // For the ranks that a process starts: its own command line with these behind it.
  app.add_option("--tensor-parallel-rank", options.tensor_parallel_rank)->group("")->take_last();
  app.add_option("--rank-board", options.rank_board_fd)->group("")->take_last();
  app.add_option("--agent-fd", options.agent_fd)->group("")->take_last();
  app.add_option("--process", options.process)->group("")->take_last();
  app.add_option("--local-ranks", options.num_local_ranks)->group("")->take_last();
  app.add_option("--local-rank", options.local_rank)->group("")->take_last();
  add_whole(app, "--data-parallel-size", options.data_parallel_size, {.least = 1, .most = 4096}, "Replicas")
      ->envname("VLLM_DP_SIZE");
  add_whole(app, "--data-parallel-rank", options.data_parallel_rank, {.most = 4095}, "Which replica this is")
      ->envname("VLLM_DP_RANK")
      ->take_last();
  app.add_option("--data-parallel-address", options.data_parallel_address,
                 "Where replica 0 waits for all ranks (it listens there)")
      ->envname("VLLM_DP_MASTER_IP")
      ->take_last()
      ->capture_default_str();
  add_whole(app, "--data-parallel-rpc-port", options.data_parallel_rpc_port, {.least = 1, .most = 65535},
            "The port there")
      ->envname("VLLM_DP_MASTER_PORT")
      ->take_last();
  add_switch(app, "enable-expert-parallel", options.enable_expert_parallel,
             "Spread the experts over all ranks of all replicas, which then step together (off: each expert's width "
             "is divided over a replica's ranks, and replicas run apart)");
  app.add_option("--expert-placement", options.expert_placement,
                 "File that says which ranks have which experts (`cachalot eplb` writes it); evenly if absent")
      ->check(CLI::ExistingFile);
  app.add_option("--expert-load", options.expert_load,
                 "File of what GET /expert_load has answered: experts are placed, and copies given, by it")
      ->check(CLI::ExistingFile);
  add_eplb_flags(app, options);
  add_group_secret_flag(app, options.group_secret_file);
  app.add_option("--network-interface", options.network_interface,
                 "Interface for traffic between nodes; the one that reaches --data-parallel-address if absent")
      ->envname("GLOO_SOCKET_IFNAME");
  add_transports_flag(app, options.transports);
  app.add_option(
         "--visible-devices", options.visible_devices,
         "Numbers of devices, separated by commas, as many as the replica has ranks; only their count is looked at")
      ->delimiter(',')
      ->envname("TOPS_VISIBLE_DEVICES");
  add_whole(app, "--exchange-max-bytes", options.exchange_max_bytes, {.most = std::numeric_limits<int64_t>::max()},
            "Bound of each buffer of the expert exchange; 0: twice what evenly spread experts need")
      ->envname("ECCL_ALLTOALLV_MAXSIZE");
  add_whole(app, "--failure-timeout-ms", options.failure_timeout_ms, {.least = 50, .most = 600'000},
            "Silence after which a rank counts as gone");
  add_whole(app, "--start-timeout", options.start_timeout_seconds, {.least = 1, .most = 86'400},
            "Seconds that a rank waits for the others at start");
  app.add_flag("--wait-on-failure", options.wait_on_failure,
               "When a rank is lost, stay and refuse requests until somebody stops this (off: exit, so that a "
               "supervisor starts anew)");
}

Status check_parallel_options(const ParallelOptions& options) {
  if (options.data_parallel_rank >= options.data_parallel_size)
    return make_parameter_error("--data-parallel-rank",
                                "--data-parallel-rank {}: there are {} replicas (--data-parallel-size), 0 to {}",
                                options.data_parallel_rank, options.data_parallel_size, options.data_parallel_size - 1);
  if (options.tensor_parallel_rank < 0 || options.tensor_parallel_rank >= options.tensor_parallel_size)
    return make_parameter_error("--tensor-parallel-rank",
                                "--tensor-parallel-rank {}: there are {} ranks (--tensor-parallel-size)",
                                options.tensor_parallel_rank, options.tensor_parallel_size);
  if (!options.visible_devices.empty() && std::ssize(options.visible_devices) != options.tensor_parallel_size) {
    return make_parameter_error(
        "--visible-devices",
        "--visible-devices (TOPS_VISIBLE_DEVICES) names {} devices for {} ranks (--tensor-parallel-size)",
        options.visible_devices.size(), options.tensor_parallel_size);
  }
  return {};
}

}  // namespace cachalot
