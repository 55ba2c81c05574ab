#include <fmt/ranges.h>

#include <memory>
#include <string_view>

#include "base/log.h"
#include "base/stop_signals.h"
#include "base/text.h"
#include "cli/commands.h"
#include "cli/flags.h"
#include "config/environment.h"
#include "serve/server.h"
#include "text/tool_call_parser.h"

namespace cachalot {

namespace {

// Those of vLLM's that divide an answer at <think> and </think>, as it is done here.
constexpr std::string_view kThinkParsers =
    "deepseek_r1 deepseek_v3 deepseek_v4 deepseek_v41 qwen3 glm45 glm47 holo2 kimi_k2 mimo nemotron_v3";

Status serve(ServeOptions& options) {
  RETURN_IF_ERROR(check_parallel_options(options.parallel));
  RETURN_IF_ERROR(complete_api_keys(options.api_keys, options.door.api_key_file));
  RETURN_IF_ERROR(check_door(options.door));
  if (!options.parallel.agents.addresses.empty())
    complete_state_dir(options.parallel.agents, options.parallel.data_parallel_rank);
  ASSIGN_OR_RETURN(options.command_line, own_command_line());
  options.stop = stop_token_of_signals();
  if (environment_variable("VLLM_GCU_ENABLE_SEQUENCE_PARALLEL") == "0")
    log::info("VLLM_GCU_ENABLE_SEQUENCE_PARALLEL=0 changes nothing: sequence parallelism is always on");
  return run_server(options);
}

void add_reasoning_parser(CLI::App& command, std::optional<bool>& reasoning) {
  command.add_option_function<std::string>(
      "--reasoning-parser",
      [&reasoning](const std::string& name) {
        if (name.empty()) return;
        if (!has_word(kThinkParsers, name))
          throw CLI::ValidationError(fmt::format(
              "--reasoning-parser {}: thoughts are those between <think> and </think>, which are the parsers "
              "{}",
              cachalot::quoted(name), fmt::join(words_of(kThinkParsers), ", ")));
        if (!reasoning) reasoning = true;
      },
      "As --enable-reasoning: deepseek_r1, or another name for the same marks");
}

void add_text_flags(CLI::App& command, TextOptions& text) {
  command.add_option("--tokenizer", text.tokenizer, "Folder of another tokenizer; --model's if absent");
  command.add_option("--chat-template", text.chat_template, "File of a chat template, or the template itself");
  command.add_option("--default-chat-template-kwargs", text.default_template_kwargs,
                     "JSON: what templates are given unless a request's chat_template_kwargs say otherwise");
  command
      .add_option("--generation-config", text.generation_config,
                  "Where sampling defaults come from: auto (the model's folder), vllm (none) or another folder")
      ->capture_default_str();
  command.add_option("--override-generation-config", text.override_generation_config,
                     "JSON: sampling defaults that go before those, e.g. {\"temperature\": 0.6}");
  command.add_option_function<std::string>(
      "--tool-call-parser",
      [&text](const std::string& name) {
        if (!name.empty() && !find_tool_call_syntax(name))
          throw CLI::ValidationError(fmt::format("--tool-call-parser {}: the formats of calls that are known are {}",
                                                 cachalot::quoted(name), fmt::join(tool_call_syntax_names(), ", ")));
        text.tool_call_parser = name;
      },
      "How the model calls tools; absent: as its chat template shows");
  add_switch(command, "exclude-tools-when-tool-choice-none", text.exclude_unusable_tools,
             "Leave tools out of prompts whose tool_choice is none (off)");
  add_switch(command, "trust-request-chat-template", text.trust_request_chat_template,
             "Let requests bring chat templates of their own (off)");
  add_switch(command, "special-tokens-in-messages", text.special_tokens_in_messages,
             "Take special tokens that stand in messages for what they are, and not for text (off)");
  add_switch(command, "enable-force-include-usage", text.force_include_usage,
             "End streams with their usage, asked or not (off)");
  add_switch(command, "return-tokens-as-token-ids", text.tokens_as_ids,
             "Tokens as token_id:N in logprobs, unless a request says otherwise (off)");
}

void add_fault_tolerance_flags(CLI::App& command, ParallelOptions& parallel) {
  add_switch(command, "enable-fault-tolerance", parallel.fault_tolerance,
             "A group that loses a rank goes on with the others: this process starts all ranks of its replica, and "
             "again those that end (off: a loss ends the group)");
  add_agents_flag(command, parallel.agents);
  command.add_flag("--witness", parallel.agents.has_witness,
                   "The group has a third voter, a router with --witness: of two servers either goes on alone");
  add_state_dir_flag(command, parallel.agents);
}

void add_service_flags(CLI::App& command, ServiceOptions& service) {
  add_whole(command, "--max-logprobs", service.max_logprobs, {.least = -1},
            "Most alternatives of a token that a request may ask for; -1: the whole vocabulary");
  add_whole(command, "--max-num-queued-reqs", service.max_num_queued_reqs, {},
            "Most requests that wait; more are refused. 0: no bound");
  add_whole(command, "--max-num-queued-tokens", service.max_num_queued_tokens,
            {.most = std::numeric_limits<int64_t>::max()},
            "Most tokens of their prompts; 0: 16 times the longest sequence");
  add_whole(command, "--max-stored-response-bytes", service.max_stored_response_bytes,
            {.most = std::numeric_limits<int64_t>::max()},
            "Bytes of answers of /v1/responses that may be asked for again; 0: none is kept");
  add_whole(command, "--sse-keep-alive-interval", service.sse_keep_alive_seconds, {.most = 86'400},
            "Seconds after which a stream with nothing to say sends a comment; 0: none");
  command.add_flag_callback(
      "--disable-log-stats", [&service] { service.log_stats = false; },
      "No line with rates every ten seconds in which there were requests");
  add_switch(command, "enable-log-requests", service.log_requests, "One line of the log for each request (off)");
}

}  // namespace

void add_serve_command(CLI::App& app) {
  auto options = std::make_shared<ServeOptions>();
  CLI::App* command = app.add_subcommand("serve", "Serve a model behind OpenAI's API");
  command->add_option("--host", options->host, "Address to listen on")->capture_default_str();
  add_whole(*command, "--port", options->port, kPortRange, "Port to listen on; 0: any free one")->take_last();
  command
      ->add_option("--served-model-name", options->served_model_names,
                   "Names the model answers to; --model as typed if absent")
      ->expected(1, -1);
  command
      ->add_option("--api-key", options->api_keys,
                   "Keys that open the API (all but /health, /live, /ping, /load, /state, /version, /metrics); else "
                   "CACHALOT_API_KEY or VLLM_API_KEY")
      ->expected(1, -1);
  add_door_flags(*command, options->door);
  add_switch(*command, "enable-reasoning", options->reasoning,
             "Thoughts apart from the answer (on if the tokenizer has <think> and </think>)");
  add_reasoning_parser(*command, options->reasoning);
  add_text_flags(*command, options->text);
  add_service_flags(*command, options->service);
  add_trace_flags(*command, options->traces);
  add_whole(*command, "--io-threads", options->io_threads, {.least = 1, .most = 256}, "Threads for connections");
  add_whole(*command, "--drain-seconds", options->drain_seconds, {},
            "How long running answers may take after SIGTERM, SIGINT or SIGHUP");
  add_whole(*command, "--idle-timeout", options->idle_timeout_seconds, {.least = 1, .most = 86'400},
            "Seconds that a client's connection may be idle between two requests");
  add_whole(*command, "--max-body-bytes-in-flight", options->max_body_bytes_in_flight,
            {.least = 1, .most = std::numeric_limits<int64_t>::max()},
            "Bytes of requests' bodies that are held at a time; beyond it requests wait, then get a 503");
  command->add_option("--config", "A YAML file of flags; those of the command line go before")->option_text("FILE");
  add_engine_flags(*command, options->engine);
  add_parallel_flags(*command, options->parallel);
  add_fault_tolerance_flags(*command, options->parallel);
  command->footer(
      "`cachalot serve FOLDER` is --model FOLDER. All flags of `vllm serve` are known: docs/vllm-flags.md says which "
      "work, "
      "which are\ntaken, and which are refused. -tp, -dp, -ep and vLLM's other short forms do, and --max_model_len "
      "4k.");
  command->callback([options, rank = command->get_option("--data-parallel-rank"),
                     survive = command->get_option("--survive")] {
    const bool heals = options->parallel.fault_tolerance || options->parallel.has_agent();
    if (heals && survive->count() == 0) options->parallel.survive = Survive::kAuto;
    if (options->parallel.data_parallel_size > 1 && rank->count() == 0)
      log::info("this process is replica 0 of {}: each has its --data-parallel-rank, and `cachalot up` starts them all",
                options->parallel.data_parallel_size);
    finish_command(serve(*options));
  });
}

}  // namespace cachalot
