#pragma once

#include <boost/json/object.hpp>
#include <boost/json/value.hpp>
#include <span>

#include "openai/choice.h"
#include "text/tokenizer.h"

namespace cachalot::openai {

// How probabilities are written. `tokens_as_ids`: a token's text is "token_id:17".
struct LogprobsStyle {
  const Tokenizer& tokenizer;
  bool tokens_as_ids = false;
};

// Of /v1/completions: four parallel lists. `text_offset` is where the first token's text begins, in characters, and is
// moved on.
boost::json::object completion_logprobs(const LogprobsStyle& style, std::span<const ReportedToken> tokens, int num_top,
                                        int& text_offset);
// Of /v1/chat/completions: {"content": [...]}, each token with its bytes.
boost::json::object chat_logprobs(const LogprobsStyle& style, std::span<const ReportedToken> tokens, int num_top);
// vLLM's prompt_logprobs: for each token of the prompt null or an object from ids to probabilities.
boost::json::array prompt_logprobs(const LogprobsStyle& style, std::span<const ReportedToken> tokens);

}  // namespace cachalot::openai
