#pragma once

#include <optional>
#include <string>
#include <vector>

#include "faults/network_nodes.h"
#include "processes/api_client.h"

namespace cachalot::test {

// What is done to one rank of a served group under load.
enum class Fault {
  kKill,      // kill -9
  kStop,      // SIGSTOP
  kLinkDown,  // its node is cut off; needs NetworkNodes
};

struct TrialOptions {
  Fault fault = Fault::kKill;
  int victim = 0;                       // rank
  std::chrono::milliseconds moment{0};  // after the first tokens
  int clients_per_replica = 3;
  NetworkNodes* network = nullptr;  // four nodes with one rank each; null: one node with two replicas of two ranks
};

// How clients saw answers end that did not come to their own end.
struct ClientCounts {
  int error_event = 0, refused = 0;
  int lost_with_server = 0;  // the very process that served it was killed, stopped or cut off: a broken connection, or
                             // no end
  // What must not be:
  int falsely_complete = 0;  // tokens are missing, and nothing says so
  int refused_wrongly = 0;   // not with 503 and a Retry-After
  int cut = 0, silent = 0;   // by a server that was not the victim

  ClientCounts& operator+=(const ClientCounts& other);
};

struct TrialResult {
  std::vector<double> detection_ms;  // of each survivor
  std::vector<double> end_ms;        // until each surviving server's process had ended
  ClientCounts clients;
  int orphans = 0;                    // servers of which something still ran at the end
  std::vector<std::string> problems;  // a survivor that said nothing, or twice, or not what; a hang
  std::string output;                 // of all processes, for whoever looks into a problem
};

// Starts a group of four ranks, lets clients stream from all its replicas, does the fault, and watches.
TrialResult run_trial(const TrialOptions& options);

}  // namespace cachalot::test
