// What is fuzzed: every reader of bytes that come from strangers or from files that somebody made elsewhere.
#pragma once

#include <span>
#include <string_view>

namespace cachalot::fuzz {

struct Target {
  std::string_view name;  // and the folder of its seeds, below tests/fuzz/seeds
  // Takes any bytes. Whatever they are, it returns; a sanitizer or CHECK ends the process where that is not so.
  void (*run)(std::string_view bytes);
  size_t max_bytes;        // larger inputs only take longer
  int num_mutations = 40;  // of each seed, in the default tests
};

std::span<const Target> targets();
const Target* find_target(std::string_view name);

// In network_targets.cc: the bytes are what a client sends to a server; what a replica answers to a router.
void talk_to_server(std::string_view bytes);
void answer_router(std::string_view bytes);

}  // namespace cachalot::fuzz
