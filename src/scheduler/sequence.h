#pragma once

#include <algorithm>
#include <memory>

#include "cache/prefix_cache.h"
#include "core/request.h"

namespace cachalot {

// A request on its way through the scheduler. `request.tokens` grows with the answer.
struct Sequence {
  Request request;
  BlockTable blocks;
  int num_computed = 0;         // leading tokens whose keys and values are in the blocks
  int num_planned = 0;          // tokens that it brings to the round being planned or under way; 0: takes no part
  int num_cached_tokens = -1;   // of the prompt, found when it was first admitted; -1: it was not yet
  int num_prompt_logprobs = 0;  // handed out, of those it asked for
  bool is_aborted = false;      // during the round under way

  int num_tokens() const { return static_cast<int>(request.tokens.size()); }
  int num_generated() const { return num_tokens() - request.num_prompt_tokens; }
  // How many more it may generate; max_tokens was cut to max_model_len when it came.
  int num_remaining() const { return request.sampling.max_tokens - num_generated(); }
  // All that is left to compute is the token that was generated last.
  bool is_decoding() const { return num_computed == num_tokens() - 1 && num_computed >= request.num_prompt_tokens; }
  // Of a prefix from the cache: the last token is always computed, so that there are logits; and with prompt logprobs
  // every token whose successor's was not handed out yet.
  int max_cached_tokens() const {
    const bool wants_logprobs =
        request.sampling.num_prompt_logprobs >= 0 && num_prompt_logprobs < request.num_prompt_tokens - 1;
    return wants_logprobs ? num_prompt_logprobs : num_tokens() - 1;
  }
  SequenceTokens view() const {
    return {.tokens = request.tokens, .num_prompt_tokens = request.num_prompt_tokens, .salt = request.cache_salt};
  }
};

}  // namespace cachalot
