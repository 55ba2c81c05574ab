#include <memory>

#include "cli/commands.h"
#include "router/running_router.h"

namespace cachalot {

namespace {

template <class Rep, class Period>
CLI::Option* add_seconds(CLI::App& app, const std::string& name, std::chrono::duration<Rep, Period>& target,
                         const std::string& help) {
  const std::chrono::duration<double> seconds = target;
  return app
      .add_option_function<double>(
          name,
          [&target](double value) {
            target =
                std::chrono::duration_cast<std::chrono::duration<Rep, Period>>(std::chrono::duration<double>(value));
          },
          help)
      ->option_text(fmt::format("SECONDS [{:g}]", seconds.count()))
      ->check(CLI::NonNegativeNumber);
}

void add_health_flags(CLI::App& app, RouterOptions& options) {
  const char* group = "Health";
  add_seconds(app, "--health-interval", options.health_interval, "Between two questions to a replica, how it is")
      ->group(group);
  add_seconds(app, "--health-timeout", options.health_timeout, "Without an answer for so long a replica is out")
      ->group(group);
  app.add_option("--health-fall", options.health_fall, "Refused questions in a row that take a replica out")
      ->check(CLI::PositiveNumber)
      ->capture_default_str()
      ->group(group);
  app.add_option("--health-rise", options.health_rise, "Good answers in a row that bring it back")
      ->check(CLI::PositiveNumber)
      ->capture_default_str()
      ->group(group);
  app.add_option("--eject-after-errors", options.eject_after_errors, "Failed requests in a row that take a replica out")
      ->check(CLI::PositiveNumber)
      ->capture_default_str()
      ->group(group);
  add_seconds(app, "--eject-time", options.eject_time, "For how long; twice as long the next time, up to 60 s")
      ->group(group);
  add_seconds(app, "--slow-start", options.slow_start, "Until a replica that came back has its full share again")
      ->group(group);
  add_seconds(app, "--stream-grace", options.stream_grace,
              "How long an answer that has begun waits for a silent replica before it ends with an error")
      ->group(group);
}

void add_limit_flags(CLI::App& app, RouterOptions& options) {
  const char* group = "Limits";
  const auto number = [&](const char* name, auto& target, const char* help) {
    app.add_option(name, target, help)->check(CLI::NonNegativeNumber)->capture_default_str()->group(group);
  };
  app.add_option("--max-tries", options.max_tries,
                 "Replicas that a request is sent to, one after the other, until one answers")
      ->check(CLI::PositiveNumber)
      ->capture_default_str()
      ->group(group);
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
  add_seconds(app, "--connect-timeout", options.connect_timeout, "To reach a replica")->group(group);
  add_seconds(app, "--answer-timeout", options.answer_timeout, "Until an answer begins, and between two pieces of it")
      ->group(group);
  add_seconds(app, "--header-timeout", options.header_timeout, "For a client to send a request's head")->group(group);
  add_seconds(app, "--body-timeout", options.body_timeout, "For a client to send a request's body")->group(group);
  add_seconds(app, "--write-timeout", options.write_timeout, "For a client that takes nothing of its answer")
      ->group(group);
  add_seconds(app, "--idle-timeout", options.idle_timeout, "For a client's connection between two requests")
      ->group(group);
}

}  // namespace

void add_router_command(CLI::App& app) {
  auto options = std::make_shared<RouterOptions>();
  CLI::App* command = app.add_subcommand("router", "One address for many replicas");
  command->add_option("--server-urls", options->server_urls, "Addresses of the replicas, http://HOST:PORT, by rank")
      ->expected(1, -1);
  command->add_option("--host", options->host, "Address to listen on")->capture_default_str();
  command->add_option("--port", options->port, "Port to listen on; 0: any free one")->capture_default_str();
  command->add_option("--model", options->model,
                      "Name that the replicas serve; a replica that serves another one is warned of");
  command
      ->add_option("--api-key", options->api_keys,
                   "Keys that open the API; absent: what clients bring is passed on unchecked")
      ->expected(1, -1);
  command->add_option("--server-api-key", options->server_api_key,
                      "Key that opens the replicas, in place of the client's");
  command->add_option("--io-threads", options->io_threads, "Threads for connections")
      ->check(CLI::Range(1, 256))
      ->capture_default_str();
  command
      ->add_option("--prefix-entries", options->prefix_entries,
                   "Beginnings of prompts to remember, to send more of the same to the same replica; 0: none")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command
      ->add_option("--drain-seconds", options->drain_seconds,
                   "How long running answers may take after SIGTERM, SIGINT or SIGHUP")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  add_health_flags(*command, *options);
  add_limit_flags(*command, *options);
  command->callback([options] { finish_command(router::run_router(*options)); });
}

}  // namespace cachalot
