#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "eval/score.h"
#include "http/client.h"
#include "openai/api_address.h"

namespace cachalot {

struct InterviewOptions {
  std::string model;
  bool bare = false;              // /v1/completions, the question and a line break; else a chat of one message
  std::optional<int> max_tokens;  // absent: as many as fit; of bare questions kBareMaxTokens
  int concurrency = 32;
  // How long a server that answers 503 may go on so before a question counts as not asked.
  std::chrono::milliseconds patience{30'000};
};

// /v1/completions gives 16 tokens to those who do not say.
constexpr int kBareMaxTokens = 1024;

// Asks all questions, greedily and several at once; gives the answers in their order. `on_progress` is told how many
// are through, from threads of its own, one call at a time. After a request to stop, the rest fails.
Answers ask_all(const http::Client& client, const openai::ApiAddress& address, const std::vector<Question>& questions,
                const InterviewOptions& options, const std::function<void(size_t num_done)>& on_progress,
                const std::stop_token& stop);

}  // namespace cachalot
