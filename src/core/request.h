#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/sampling_params.h"
#include "core/token_constraint.h"
#include "core/types.h"

namespace cachalot {

// One sequence to be continued: one choice of an API request.
struct Request {
  RequestId id = 0;
  std::vector<TokenId>
      tokens;                 // what is known at the start: the prompt, and for a resumed request what it had generated
  int num_prompt_tokens = 0;  // the first so many tokens have the role prompt; the rest were generated
  SamplingParams sampling;
  RequestId parent = 0;                         // the same for all choices of one prompt
  int num_choices = 1;                          // of the prompt; sampling.choice says which this is
  int priority = 0;                             // lower is served first (--scheduling-policy priority)
  int64_t arrival_ns = 0;                       // monotonic clock
  std::string cache_salt;                       // the prefix cache is shared only among equal salts (tenants)
  std::unique_ptr<TokenConstraint> constraint;  // may be null
};

}  // namespace cachalot
