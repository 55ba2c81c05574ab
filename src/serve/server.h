#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "config/engine_options.h"
#include "config/parallel_options.h"

namespace cachalot {

struct ServeOptions {
  EngineOptions engine;
  ParallelOptions parallel;
  std::vector<std::string> command_line;  // of this process, for the ranks that it starts
  std::string host = "0.0.0.0";
  uint16_t port = 8000;
  std::vector<std::string> served_model_names;  // none: the model's folder exactly as typed
  std::vector<std::string> api_keys;
  std::optional<bool> reasoning;  // absent: if the tokenizer has <think> and </think>
  int io_threads = 2;
  int drain_seconds = 30;  // how long running answers may take after SIGTERM or SIGINT
};

// Starts the replica's other ranks, meets those of the other replicas, loads the model, serves it until SIGTERM or
// SIGINT, drains, and returns. A second signal ends the drain. Errors: the model's folder, memory, the address; what
// the ranks disagree on; a rank that was lost (unless options.parallel.wait_on_failure). In a process that was started
// as such a rank: takes part until its leader has enough.
Status run_server(const ServeOptions& options);

}  // namespace cachalot
