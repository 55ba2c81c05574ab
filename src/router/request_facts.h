#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "router/prefix_affinity.h"

namespace cachalot::router {

// What the router reads of a request to choose a replica for it; nothing hangs on it but the choice.
struct RequestFacts {
  double num_prompt_tokens = 0;  // an estimate
  std::vector<Prefix> prefixes;
};

// Reads the prompt or the messages of a JSON body; of one that is cut off, what is there.
RequestFacts read_request_facts(std::string_view body);

}  // namespace cachalot::router
