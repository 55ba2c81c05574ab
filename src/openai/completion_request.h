#pragma once

#include <boost/json/object.hpp>
#include <variant>
#include <vector>

#include "openai/generation_params.h"

namespace cachalot::openai {

// A body of POST /v1/completions.
struct CompletionRequest {
  GenerationParams params;
  std::vector<std::variant<std::string, std::vector<TokenId>>> prompts;
  bool echo = false;
  bool add_special_tokens = true;
};

ApiResult<CompletionRequest> parse_completion_request(const boost::json::object& object,
                                                      const GenerationConfig& defaults, const RequestLimits& limits);

}  // namespace cachalot::openai
