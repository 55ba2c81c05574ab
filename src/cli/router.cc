#include <memory>

#include "agents/running_agent.h"
#include "cli/commands.h"
#include "cli/flags.h"
#include "router/running_router.h"

namespace cachalot {

namespace {

template <class Rep, class Period>
CLI::Option* add_seconds(CLI::App& app, const std::string& name, std::chrono::duration<Rep, Period>& target,
                         const std::string& help) {
  const std::chrono::duration<double> seconds = target;
  return flag_values::add(app, name, target, help,
                          [](const CLI::Option& option, const std::string& text) {
                            const double value = flag_values::read_real(option, text, {0, 1e8});
                            return std::chrono::duration_cast<std::chrono::duration<Rep, Period>>(
                                std::chrono::duration<double>(value));
                          })
      ->option_text(fmt::format("SECONDS [{:g}]", seconds.count()));
}

void add_health_flags(CLI::App& app, RouterOptions& options) {
  const auto seconds = [&](const char* name, auto& target, const char* help) {
    add_seconds(app, name, target, help)->group("Health");
  };
  const auto count = [&](const char* name, int& target, const char* help) {
    add_whole(app, name, target, {.least = 1}, help)->group("Health");
  };
  seconds("--health-interval", options.health_interval, "Between two questions to a replica, how it is");
  seconds("--health-timeout", options.health_timeout, "Without an answer for so long a replica is out");
  count("--health-fall", options.health_fall, "Refused questions in a row that take a replica out");
  count("--health-rise", options.health_rise, "Good answers in a row that bring it back");
  count("--eject-after-errors", options.eject_after_errors, "Failed requests in a row that take a replica out");
  seconds("--eject-time", options.eject_time, "For how long; twice as long the next time, up to 60 s");
  seconds("--slow-start", options.slow_start, "Until a replica that came back has its full share again");
  seconds("--stream-grace", options.stream_grace,
          "How long an answer that has begun and is not kept waits for a silent replica before it ends with an error");
  seconds("--takeover-timeout", options.takeover_timeout,
          "How long an answer whose replica is gone waits for one that goes on with it");
  add_whole(app, "--takeover-memory", options.takeover_memory, {},
            "Bytes of requests and their tokens that are kept, so that another replica can go on; 0: none")
      ->group("Health");
}

void add_limit_flags(CLI::App& app, RouterOptions& options) {
  const auto number = [&](const char* name, auto& target, const char* help) {
    add_whole(app, name, target, {}, help)->group("Limits");
  };
  const auto seconds = [&](const char* name, auto& target, const char* help) {
    add_seconds(app, name, target, help)->group("Limits");
  };
  add_whole(app, "--max-tries", options.max_tries, {.least = 1},
            "Replicas that a request is sent to, one after the other, until one answers")
      ->group("Limits");
  number("--max-in-flight", options.max_in_flight, "Requests at all replicas together; more get a 429. 0: no limit");
  number(
      "--max-in-flight-per-replica", options.max_in_flight_per_replica,
      "Requests at each replica, below the connections that it takes; more go to another, or get a 429. 0: no limit");
  number("--max-connections", options.max_connections,
         "Clients' connections; more are refused, but for /health and /metrics. 0: as many as open files allow, up to "
         "32768");
  number("--max-header-bytes", options.max_header_bytes, "Longest head of a request");
  number("--max-body-bytes", options.max_body_bytes, "Longest body of a request");
  number("--max-body-bytes-in-flight", options.max_body_bytes_in_flight,
         "Bytes of requests' bodies that are held at a time; beyond it requests wait, then get a 503");
  seconds("--connect-timeout", options.connect_timeout, "To reach a replica");
  seconds("--answer-timeout", options.answer_timeout, "Until an answer begins, and between two pieces of it");
  seconds("--header-timeout", options.header_timeout, "For a client to send a request's head");
  seconds("--body-timeout", options.body_timeout, "For a client to send a request's body");
  seconds("--write-timeout", options.write_timeout, "For a client that takes nothing of its answer");
  seconds("--idle-timeout", options.idle_timeout, "For a client's connection between two requests");
}

// The third voter of a group whose servers are two.
Result<std::unique_ptr<agents::RunningAgent>> start_witness(RouterOptions& options) {
  AgentsOptions& flags = options.agents;
  if (flags.addresses.empty())
    return make_parameter_error("--witness", "--witness needs --agents, the addresses of the servers' agents");
  const auto server = static_cast<int>(flags.addresses.size());
  complete_state_dir(flags, server);
  ASSIGN_OR_RETURN(auto agent,
                   agents::agent_options(flags, server, 0, options.failure_timeout_ms, options.group_secret_file, {}));
  return agents::RunningAgent::start(std::move(agent));
}

void add_witness_flags(CLI::App& app, RouterOptions& options) {
  app.add_flag("--witness", options.agents.has_witness,
               "Vote among the agents of a group of two servers, so that either goes on without the other")
      ->group("Witness");
  add_agents_flag(app, options.agents)->group("Witness");
  add_state_dir_flag(app, options.agents)->group("Witness");
  add_group_secret_flag(app, options.group_secret_file)->group("Witness");
  add_whole(app, "--failure-timeout-ms", options.failure_timeout_ms, {.least = 50, .most = 600'000},
            "As that of the servers")
      ->group("Witness");
}

}  // namespace

void add_router_command(CLI::App& app) {
  auto options = std::make_shared<RouterOptions>();
  CLI::App* command = app.add_subcommand("router", "One address for many replicas");
  command
      ->add_option("--server-urls", options->server_urls,
                   "Addresses of the replicas, http:// or https://HOST:PORT, by rank")
      ->expected(1, -1);
  command->add_option("--host", options->host, "Address to listen on")->capture_default_str();
  add_whole(*command, "--port", options->port, kPortRange, "Port to listen on; 0: any free one");
  command->add_option("--model", options->model,
                      "Name that the replicas serve; a replica that serves another one is warned of");
  command
      ->add_option(
          "--api-key", options->api_keys,
          "Keys that open the API; else CACHALOT_API_KEY or VLLM_API_KEY; absent: what clients bring is passed "
          "on unchecked")
      ->expected(1, -1);
  command->add_option("--server-api-key", options->server_api_key,
                      "Key that opens the replicas, in place of the client's");
  command->add_option("--replica-ca-certs", options->replica_ca_certs,
                      "Authorities (PEM) that vouch for replicas with https://; the system's if absent");
  add_door_flags(*command, options->door);
  add_whole(*command, "--io-threads", options->io_threads, {.least = 1, .most = 256}, "Threads for connections");
  add_whole(*command, "--prefix-entries", options->prefix_entries, {},
            "Beginnings of prompts to remember, to send more of the same to the same replica; 0: none");
  add_whole(*command, "--drain-seconds", options->drain_seconds, {},
            "How long running answers may take after SIGTERM, SIGINT or SIGHUP");
  add_switch(*command, "enable-log-requests", options->log_requests, "One line of the log for each request (off)");
  add_trace_flags(*command, options->traces);
  add_health_flags(*command, *options);
  add_limit_flags(*command, *options);
  add_witness_flags(*command, *options);
  command->callback([options] {
    finish_command(complete_api_keys(options->api_keys, options->door.api_key_file));
    finish_command(check_door(options->door));
    std::unique_ptr<agents::RunningAgent> witness;
    if (options->agents.has_witness) {
      auto started = start_witness(*options);
      if (!started) finish_command(std::unexpected(started.error()));
      witness = std::move(*started);
    }
    finish_command(router::run_router(*options));
  });
}

}  // namespace cachalot
