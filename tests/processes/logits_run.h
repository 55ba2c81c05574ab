#pragma once

#include <boost/json.hpp>
#include <string>
#include <vector>

#include "core/types.h"
#include "model_harness.h"

namespace cachalot::test {

// What `cachalot logits` is asked, and on which layout of processes.
struct LogitsQuestion {
  std::string model;
  Layout layout;
  std::vector<TokenId> tokens;
  int generated_from = -1;
  int replica = 0;
  std::string dtype = "float32";
  std::vector<std::string> more_flags;
};

struct LogitsAnswer {
  std::vector<float> logits;  // [num_tokens, vocab_size]
  boost::json::array ranks;   // of the report
};

// Runs it to its end; fails the test if it fails, hangs, or leaves a process behind.
LogitsAnswer run_logits(const LogitsQuestion& question);

}  // namespace cachalot::test
