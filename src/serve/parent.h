#pragma once

#include "base/error.h"
#include "serve/server.h"

namespace cachalot {

// `serve --enable-fault-tolerance`: this process is the agent of all ranks of its replica, the leader with its HTTP
// server among them (src/agents). It starts them, and starts again those that end, until SIGTERM, SIGINT or SIGHUP;
// then they drain, and it returns. A second signal ends the drain. To be called by the main thread. Errors: what no
// rank can do; what a rank has said that ended before any was ready; the agent's folder, or its address.
Status run_parent(const ServeOptions& options);

}  // namespace cachalot
