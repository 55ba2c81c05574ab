#pragma once

#include <span>
#include <string>

#include "openai/choice.h"
#include "text/tokenizer.h"

namespace cachalot::openai {

// How probabilities are written. `tokens_as_ids`: a token's text is "token_id:17".
struct LogprobsStyle {
  const Tokenizer& tokenizer;
  bool tokens_as_ids = false;
};

// They append JSON, without a tree of values, which would take 10 KB for a token with 20 alternatives.

// Of /v1/completions: four parallel lists. `text_offset` is where the first token's text begins, in characters, and is
// moved on.
void append_completion_logprobs(const LogprobsStyle& style, std::span<const ReportedToken> tokens, int num_top,
                                int& text_offset, std::string& text);
// Of /v1/chat/completions: {"content": [...]}, each token with its bytes.
void append_chat_logprobs(const LogprobsStyle& style, std::span<const ReportedToken> tokens, int num_top,
                          std::string& text);
// vLLM's prompt_logprobs: for each token of the prompt null or an object from ids to probabilities.
void append_prompt_logprobs(const LogprobsStyle& style, std::span<const ReportedToken> tokens, std::string& text);

}  // namespace cachalot::openai
