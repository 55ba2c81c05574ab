#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "base/error.h"
#include "config/options.h"
#include "serve/rank_group.h"

namespace cachalot {

// Where a server's texts come from, if not from the model's folder, and what answers hold unasked.
struct TextOptions {
  std::string tokenizer;                     // another folder
  std::string chat_template;                 // a file, or the template itself
  std::string generation_config = "auto";    // "vllm": none of the model's sampling defaults; else another folder
  std::string override_generation_config;    // a JSON object that goes before that
  std::string default_template_kwargs;       // a JSON object: what templates are given unless a request says otherwise
  std::string tool_call_parser;              // how the model calls tools; empty: as its chat template shows
  bool exclude_unusable_tools = false;       // from prompts, where a request's tool_choice is none
  bool trust_request_chat_template = false;  // a request may bring its own
  bool special_tokens_in_messages = false;   // what messages hold of them is no text
  bool force_include_usage = false;          // streams end with their usage, asked or not
  bool tokens_as_ids = false;                // "token_id:7" in logprobs, unless a request says otherwise
};

struct ServeOptions {
  EngineOptions engine;
  ServiceOptions service;
  TextOptions text;
  ParallelOptions parallel;
  Starts starts = Starts::kReplica;
  std::vector<std::string> command_line;  // of this process, for the ranks that it starts
  std::string host = "0.0.0.0";
  uint16_t port = 8000;
  std::vector<std::string> served_model_names;  // none: the model's folder exactly as typed
  std::vector<std::string> api_keys;
  TraceOptions traces;
  DoorOptions door;
  std::optional<bool> reasoning;  // absent: if the tokenizer has <think> and </think>
  int io_threads = 2;
  int idle_timeout_seconds = 75;                // of a client's connection between two requests
  size_t max_body_bytes_in_flight = 256 << 20;  // of all requests' bodies
  int drain_seconds = 30;                       // how long running answers may take after SIGTERM, SIGINT or SIGHUP
  std::stop_token stop;                         // gives up a start
  // What a process may take to end after a signal: beyond the drain, the other replicas have some time to leave, too.
  std::chrono::seconds end_time() const { return std::chrono::seconds(drain_seconds + 8); }
};

RankGroupOptions group_options(const ServeOptions& options);

// A replica with its ranks behind OpenAI's API, from start() until stop(). To be started and stopped by the main
// thread.
class RunningServer {
 public:
  // Told once, on a thread of the server's, when the ranks cannot go on: what is left to say of it. No more requests
  // are taken; stop() is still to be called.
  using FailureHandler = std::function<void(const Error&)>;
  using Deadline = std::chrono::steady_clock::time_point;

  // Takes the address, starts the ranks, answers probes (/live, /state), meets those that others start, loads the
  // model, serves. Errors: the model's folder, memory, the address; what the ranks disagree on; a rank that was lost.
  static Result<std::unique_ptr<RunningServer>> start(const ServeOptions& options, FailureHandler on_failure);
  // Ends what stop() has not ended.
  ~RunningServer();
  RunningServer(const RunningServer&) = delete;
  RunningServer& operator=(const RunningServer&) = delete;

  std::string url() const;         // "http://HOST:PORT/v1"
  std::string model_name() const;  // as clients call it

  // Refuses new requests, lets running ones finish until the deadline, then ends them; leaves the group.
  void stop(Deadline deadline);
  // While another thread waits in stop(): ends the running answers now.
  void end_answers();

 private:
  struct Parts;
  explicit RunningServer(const ServeOptions& options);
  std::unique_ptr<Parts> parts_;
};

// Starts the replica's other ranks, meets those of the other replicas, loads the model, serves it until SIGTERM,
// SIGINT or SIGHUP, drains, and returns. A second signal ends the drain. Errors: those of the start; a rank that was
// lost (unless options.parallel.wait_on_failure). In a process that was started as such a rank: takes part until its
// leader has enough.
Status run_server(const ServeOptions& options);

}  // namespace cachalot
