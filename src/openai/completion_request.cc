#include "openai/completion_request.h"

#include <algorithm>

#include "openai/request_fields.h"

namespace cachalot::openai {

namespace json = boost::json;

namespace {

constexpr std::string_view kPromptForms = "a string, a list of strings, a list of token ids, or a list of such lists";

// A list of prompts is all strings, or all ids (one prompt), or all lists of ids: never mixed.
void read_prompt_list(const json::array& list, JsonKeys& keys, const RequestLimits& limits,
                      CompletionRequest& request) {
  if (list.empty()) return keys.fault("prompt", "is an empty list", kPromptForms);
  const auto all = [&](auto is) { return std::ranges::all_of(list, is); };
  if (all([](const json::value& item) { return item.is_int64(); })) {
    read_token_ids(list, "prompt", keys, limits.vocab_size, request.prompts.emplace_back().emplace<1>());
    return;
  }
  if (list.size() > static_cast<size_t>(limits.max_choices))
    return keys.fault("prompt", fmt::format("holds {} prompts", list.size()),
                      fmt::format("at most {}", limits.max_choices));
  if (all([](const json::value& item) { return item.is_string(); })) {
    for (const json::value& item : list) request.prompts.emplace_back(std::string(item.get_string()));
  } else if (all([](const json::value& item) { return item.is_array(); })) {
    for (const json::value& item : list)
      read_token_ids(item.get_array(), "prompt", keys, limits.vocab_size, request.prompts.emplace_back().emplace<1>());
  } else {
    keys.fault("prompt", "is a list of several kinds of things", kPromptForms);
  }
}

void read_prompts(JsonKeys& keys, const RequestLimits& limits, CompletionRequest& request) {
  const json::value* prompt = keys.find("prompt");
  if (!prompt) return keys.fault("prompt", "is missing", kPromptForms);
  if (prompt->is_string())
    request.prompts.emplace_back(std::string(prompt->get_string()));
  else if (prompt->is_array())
    read_prompt_list(prompt->get_array(), keys, limits, request);
  else
    keys.fault("prompt", "is something else", kPromptForms);
}

}  // namespace

ApiResult<CompletionRequest> parse_completion_request(const json::object& object, const GenerationConfig& defaults,
                                                      const RequestLimits& limits) {
  CompletionRequest request;
  GenerationParams& params = request.params;
  JsonKeys keys(object, kRequest);
  check_field_names(object, keys, Endpoint::kCompletions);
  read_prompts(keys, limits, request);
  read_generation_params(object, keys, defaults, limits, params);
  keys.optional("echo", request.echo);
  keys.optional("add_special_tokens", request.add_special_tokens);
  keys.optional("logprobs", params.sampling.num_logprobs, 0, limits.max_logprobs);
  if (params.max_tokens == 0 && !request.echo) keys.fault("max_tokens", "is 0", "at least 1 unless echo is true");
  if (request.prompts.size() * static_cast<size_t>(params.num_choices) > static_cast<size_t>(limits.max_choices))
    keys.fault("n", fmt::format("is {} for {} prompts", params.num_choices, request.prompts.size()),
               fmt::format("such that there are at most {} choices", limits.max_choices));
  // An echoed prompt comes with its logprobs, too.
  if (request.echo && params.sampling.num_logprobs >= 0 && params.sampling.num_prompt_logprobs < 0)
    params.sampling.num_prompt_logprobs = params.sampling.num_logprobs;
  RETURN_IF_ERROR(keys.status());
  return request;
}

}  // namespace cachalot::openai
