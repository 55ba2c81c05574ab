#include <memory>

#include "base/stop_signals.h"
#include "cli/command_line.h"
#include "cli/commands.h"
#include "cli/engine_flags.h"
#include "cli/parallel_flags.h"
#include "serve/server.h"

namespace cachalot {

namespace {

Status serve(ServeOptions& options) {
  RETURN_IF_ERROR(check_parallel_options(options.parallel));
  ASSIGN_OR_RETURN(options.command_line, own_command_line());
  options.stop = stop_token_of_signals();
  return run_server(options);
}

}  // namespace

void add_serve_command(CLI::App& app) {
  auto options = std::make_shared<ServeOptions>();
  CLI::App* command = app.add_subcommand("serve", "Serve a model behind OpenAI's API");
  command->add_option("--host", options->host, "Address to listen on")->capture_default_str();
  command->add_option("--port", options->port, "Port to listen on; 0: any free one")->capture_default_str();
  command
      ->add_option("--served-model-name", options->served_model_names,
                   "Names the model answers to; --model as typed if absent")
      ->expected(1, -1);
  command
      ->add_option("--api-key", options->api_keys,
                   "Keys that open the API (all but /health, /live, /ping, /load, /state, /version, /metrics)")
      ->expected(1, -1);
  add_switch(*command, "enable-reasoning", options->reasoning,
             "Thoughts apart from the answer (on if the tokenizer has <think> and </think>)");
  command->add_option("--io-threads", options->io_threads, "Threads for connections")
      ->check(CLI::Range(1, 256))
      ->capture_default_str();
  command
      ->add_option("--drain-seconds", options->drain_seconds,
                   "How long running answers may take after SIGTERM, SIGINT or SIGHUP")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command
      ->add_option("--idle-timeout", options->idle_timeout_seconds,
                   "Seconds that a client's connection may be idle between two requests")
      ->check(CLI::Range(1, 86'400))
      ->capture_default_str();
  command
      ->add_option("--max-body-bytes-in-flight", options->max_body_bytes_in_flight,
                   "Bytes of requests' bodies that are held at a time; beyond it requests wait, then get a 503")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  add_engine_flags(*command, options->engine);
  add_parallel_flags(*command, options->parallel);
  add_ignored_flags(*command);
  command->callback([options] { finish_command(serve(*options)); });
}

}  // namespace cachalot
