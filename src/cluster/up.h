#pragma once

#include <string>

#include "base/error.h"
#include "config/cluster_file.h"

namespace cachalot {

struct UpOptions {
  ClusterFile cluster;
  std::string run_folder;
  std::string program_name = "cachalot";  // as the person typed it, for what they may do next
  bool detach = false;                    // return when it is ready; it goes on behind
};

// Starts the cluster, shows how far it is, says how to talk to it, and watches over it until SIGTERM, SIGINT or SIGHUP.
// To be called by the main thread, before it has others. Errors: what the file asks for cannot be; the cluster is up
// already; a port is taken; a start that failed.
Status run_up(UpOptions options);

// The folder of the built-in model: models/nano below the working folder, or below a folder that the program lies in,
// or there in share/cachalot.
Result<std::string> find_built_in_model();

}  // namespace cachalot
