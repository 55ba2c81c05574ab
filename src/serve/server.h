#pragma once

#include "serve/running_server.h"

namespace cachalot {

// Starts the replica's other ranks, meets those of the other replicas, loads the model, serves it until SIGTERM,
// SIGINT or SIGHUP, drains, and returns. A second signal ends the drain. Errors: those of the start; a rank that was
// lost (unless options.parallel.wait_on_failure). In a process that was started as such a rank: takes part until its
// leader has enough.
Status run_server(const ServeOptions& options);

}  // namespace cachalot
