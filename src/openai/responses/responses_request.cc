#include "openai/responses/responses_request.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "base/text.h"
#include "openai/request/structured_outputs.h"
#include "openai/request/transcript.h"
#include "openai/responses/response_items.h"
#include "openai/responses/response_tools.h"

namespace cachalot::openai {

namespace json = boost::json;

namespace {

// Of the chat endpoint's fields, those that mean the same here.
constexpr std::string_view kShared =
    "model temperature top_p top_k min_p presence_penalty frequency_penalty repetition_penalty logit_bias seed stop "
    "stop_token_ids ignore_eos min_tokens include_stop_str_in_output skip_special_tokens stream priority cache_salt "
    "request_id service_tier structured_outputs";
constexpr std::string_view kOwn =
    "input instructions tools tool_choice parallel_tool_calls text reasoning max_output_tokens top_logprobs metadata "
    "include truncation user store previous_response_id background";
// Of no consequence here, or hints.
constexpr std::string_view kHints =
    "max_tool_calls safety_identifier prompt_cache_key prompt_cache_retention prompt_cache_options stream_options "
    "client_metadata access_programs background_options";
constexpr std::string_view kRefused = "conversation prompt context_management moderation image";

void read_text_options(JsonKeys& keys, ChatRequest& chat, json::object& echo) {
  GenerationParams& params = chat.params;
  json::object text = {{"format", {{"type", "text"}}}, {"verbosity", "medium"}};
  if (const json::object* given = keys.object("text")) {
    JsonKeys inner = keys.nested("text", *given);
    std::string verbosity;
    inner.optional("verbosity", verbosity);
    if (!verbosity.empty() && !has_word("low medium high", verbosity))
      keys.fault("text.verbosity", "is " + quoted(verbosity), "low, medium or high");
    if (!verbosity.empty()) text["verbosity"] = verbosity;
    if (const json::value* format = inner.find("format")) {
      std::optional<GrammarText> grammar =
          read_text_format(*format, "text.format", keys, chat.conversation.response_schema);
      if (grammar && params.grammar)
        keys.fault("text.format", "is given beside structured_outputs", "the only one: an answer has one form");
      if (grammar) params.grammar = std::move(grammar);
      text["format"] = *format;
    }
  }
  echo["text"] = std::move(text);
}

void read_reasoning(JsonKeys& keys, std::string& effort, json::object& echo) {
  json::object shown = {{"effort", nullptr}, {"summary", nullptr}};
  if (const json::object* given = keys.object("reasoning")) {
    effort = text_at(*given, "effort");
    const json::value* value = given->if_contains("effort");
    if (value && !value->is_null() && !has_word("none minimal low medium high xhigh max", effort))
      keys.fault("reasoning.effort", "is " + cachalot::shown(*value), "none, minimal, low, medium, high, xhigh or max");
    // There are no summaries: what a thought says stands in its content.
    for (const char* key : {"effort", "summary"})
      if (const json::value* part = given->if_contains(key)) shown[key] = *part;
  }
  echo["reasoning"] = std::move(shown);
}

void read_include(JsonKeys& keys, const RequestLimits& limits, ResponsesRequest& request) {
  std::vector<std::string> include;
  keys.optional("include", include);
  SamplingParams& sampling = request.chat.params.sampling;
  int num_top = 0;
  keys.optional("top_logprobs", num_top, 0, limits.max_logprobs);
  for (const std::string& what : include) {
    if (what == "message.output_text.logprobs")
      sampling.num_logprobs = num_top;
    else if (what == "reasoning.encrypted_content")
      request.returns_thoughts = true;
    // Of tools that are not there.
    else if (!has_word("file_search_call.results web_search_call.results web_search_call.action.sources "
                       "message.input_image.image_url computer_call_output.output.image_url "
                       "code_interpreter_call.outputs",
                       what))
      keys.fault("include", "holds " + quoted(what), "a list of what Responses know");
  }
  if (num_top > 0) sampling.num_logprobs = num_top;
}

void read_metadata(JsonKeys& keys, json::object& echo) {
  constexpr size_t kMostEntries = 16;
  const json::object* metadata = keys.object("metadata");
  echo["metadata"] = metadata ? *metadata : json::object();
  if (metadata && (metadata->size() > kMostEntries ||
                   std::ranges::any_of(*metadata, [](const auto& entry) { return !entry.value().is_string(); })))
    keys.fault("metadata", "is something else", fmt::format("an object of at most {} strings", kMostEntries));
}

// As a person writes it: a float's neighbours among doubles have many digits.
double shortest(float number) {
  return parse_number<double>(fmt::format("{}", number)).value_or(number);
}

void read_options(JsonKeys& keys, const RequestLimits& limits, ResponsesRequest& request) {
  GenerationParams& params = request.chat.params;
  json::object& echo = request.echo;
  bool background = false;
  keys.optional("background", background);
  if (background)
    keys.fault("background", "is true", "false: an answer is generated while its client waits for it, and nowhere else",
               ErrorCode::kUnsupported);
  keys.optional("store", request.store);
  std::string truncation = "disabled", user;
  keys.optional("truncation", truncation);
  if (truncation != "disabled" && truncation != "auto")
    keys.fault("truncation", "is " + quoted(truncation), "auto or disabled");
  request.truncates = truncation == "auto";
  keys.optional("user", user);
  if (keys.find("max_output_tokens"))
    keys.optional("max_output_tokens", params.max_tokens.emplace(), 1, std::numeric_limits<int>::max());
  read_include(keys, limits, request);
  read_metadata(keys, echo);
  read_text_options(keys, request.chat, echo);
  read_reasoning(keys, request.chat.conversation.reasoning_effort, echo);
  const auto as_given = [&](const char* key, json::value otherwise) {
    const json::value* value = keys.find(key);
    echo[key] = value ? *value : std::move(otherwise);
  };
  echo["background"] = false;
  as_given("instructions", nullptr);
  as_given("max_output_tokens", nullptr);
  as_given("max_tool_calls", nullptr);
  as_given("previous_response_id", nullptr);
  as_given("prompt_cache_key", nullptr);
  as_given("safety_identifier", nullptr);
  as_given("temperature", shortest(params.sampling.temperature));
  as_given("top_p", shortest(params.sampling.top_p));
  as_given("top_logprobs", 0);
  as_given("presence_penalty", shortest(params.sampling.presence_penalty));
  as_given("frequency_penalty", shortest(params.sampling.frequency_penalty));
  as_given("user", nullptr);
  as_given("tool_choice", "auto");
  echo["service_tier"] = "default";
  echo["store"] = request.store;
  echo["truncation"] = truncation;
}

}  // namespace

ApiResult<ResponsesRequest> parse_responses_request(const json::object& object, const GenerationConfig& defaults,
                                                    const RequestLimits& limits, ResponseStore& store,
                                                    const std::string& owner) {
  ResponsesRequest request;
  Conversation& conversation = request.chat.conversation;
  JsonKeys keys(object, kRequest);
  check_field_names(object, keys, fmt::format("{} {} {}", kShared, kOwn, kHints), kRefused);
  RETURN_IF_ERROR(read_shared_params(object, kShared, defaults, limits, request.chat.params));
  read_options(keys, limits, request);
  json::array tools;
  read_response_tools(keys, limits, conversation.tools, request.namespaced_tools, tools);
  read_response_tool_choice(keys, conversation.tools);
  keys.optional("parallel_tool_calls", conversation.tools.parallel);
  request.echo["tools"] = std::move(tools);
  request.echo["parallel_tool_calls"] = conversation.tools.parallel;
  std::string instructions;
  keys.optional("instructions", instructions);
  keys.optional("previous_response_id", request.previous_id);
  ASSIGN_OR_RETURN(request.input_items, read_input(keys, limits, store, owner));
  RETURN_IF_ERROR(keys.status());

  Transcript transcript(conversation.messages);
  if (!instructions.empty()) transcript.say_as_system(instructions);
  RETURN_IF_ERROR(read_items(request, limits, store, owner, keys, transcript));
  if (conversation.messages.empty()) keys.fault("input", "holds nothing", "a string or a list of at least one item");
  RETURN_IF_ERROR(keys.status());
  return request;
}

}  // namespace cachalot::openai
