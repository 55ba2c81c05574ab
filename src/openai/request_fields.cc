#include <fmt/format.h>

#include <algorithm>
#include <mutex>
#include <set>
#include <string>

#include "base/log.h"
#include "base/text.h"
#include "openai/generation_params.h"

namespace cachalot::openai {

namespace json = boost::json;

namespace {

enum class Treatment {
  kRead,     // by whoever parses the request
  kHint,     // changes no answer here or elsewhere: accounting, hints, fields of other kinds of models
  kRefused,  // changes answers elsewhere, and cannot be had here
};
enum class Where { kBoth, kCompletions, kChats };

struct Field {
  std::string_view name;
  Where where;
  Treatment treatment;
  std::string_view instead = "left out: it is not supported";  // of a refused one: what would be right
};

constexpr std::string_view kTemplateKwargs = "given in chat_template_kwargs, if the model's template knows it";
constexpr std::string_view kNoTools = "left out: tools are not supported";
constexpr std::string_view kNoGrammars = "left out: constrained answers are not supported";

constexpr Field kFields[] = {
    // OpenAI's
    {"model", Where::kBoth, Treatment::kRead},
    {"prompt", Where::kCompletions, Treatment::kRead},
    {"messages", Where::kChats, Treatment::kRead},
    {"n", Where::kBoth, Treatment::kRead},
    {"best_of", Where::kBoth, Treatment::kRead},
    {"echo", Where::kBoth, Treatment::kRead},
    {"frequency_penalty", Where::kBoth, Treatment::kRead},
    {"presence_penalty", Where::kBoth, Treatment::kRead},
    {"logit_bias", Where::kBoth, Treatment::kRead},
    {"logprobs", Where::kBoth, Treatment::kRead},
    {"top_logprobs", Where::kChats, Treatment::kRead},
    {"max_tokens", Where::kBoth, Treatment::kRead},
    {"max_completion_tokens", Where::kChats, Treatment::kRead},
    {"seed", Where::kBoth, Treatment::kRead},
    {"stop", Where::kBoth, Treatment::kRead},
    {"stream", Where::kBoth, Treatment::kRead},
    {"stream_options", Where::kBoth, Treatment::kRead},
    {"temperature", Where::kBoth, Treatment::kRead},
    {"top_p", Where::kBoth, Treatment::kRead},
    {"reasoning_effort", Where::kChats, Treatment::kRead},
    {"service_tier", Where::kBoth, Treatment::kRead},
    {"user", Where::kBoth, Treatment::kHint},
    {"metadata", Where::kBoth, Treatment::kHint},
    {"store", Where::kBoth, Treatment::kHint},
    {"safety_identifier", Where::kBoth, Treatment::kHint},
    {"prompt_cache_key", Where::kBoth, Treatment::kHint},
    {"prompt_cache_retention", Where::kBoth, Treatment::kHint},
    {"prediction", Where::kChats, Treatment::kHint},
    {"parallel_tool_calls", Where::kChats, Treatment::kHint},
    {"suffix", Where::kCompletions, Treatment::kRefused},
    {"tools", Where::kChats, Treatment::kRefused, kNoTools},
    {"tool_choice", Where::kChats, Treatment::kRefused, "none or auto: tools are not supported"},
    {"functions", Where::kChats, Treatment::kRefused, kNoTools},
    {"function_call", Where::kChats, Treatment::kRefused, kNoTools},
    {"response_format", Where::kBoth, Treatment::kRefused, "of type text: constrained answers are not supported"},
    {"modalities", Where::kChats, Treatment::kRefused, "[\"text\"]"},
    {"audio", Where::kChats, Treatment::kRefused},
    {"web_search_options", Where::kChats, Treatment::kRefused},
    {"verbosity", Where::kChats, Treatment::kRefused, "medium or left out; say in the messages how long answers are"},
    // vLLM's
    {"top_k", Where::kBoth, Treatment::kRead},
    {"min_p", Where::kBoth, Treatment::kRead},
    {"repetition_penalty", Where::kBoth, Treatment::kRead},
    {"stop_token_ids", Where::kBoth, Treatment::kRead},
    {"include_stop_str_in_output", Where::kBoth, Treatment::kRead},
    {"ignore_eos", Where::kBoth, Treatment::kRead},
    {"min_tokens", Where::kBoth, Treatment::kRead},
    {"skip_special_tokens", Where::kBoth, Treatment::kRead},
    {"truncate_prompt_tokens", Where::kBoth, Treatment::kRead},
    {"truncation_side", Where::kBoth, Treatment::kRead},
    {"prompt_logprobs", Where::kBoth, Treatment::kRead},
    {"add_special_tokens", Where::kBoth, Treatment::kRead},
    {"priority", Where::kBoth, Treatment::kRead},
    {"request_id", Where::kBoth, Treatment::kRead},
    {"return_tokens_as_token_ids", Where::kBoth, Treatment::kRead},
    {"cache_salt", Where::kBoth, Treatment::kRead},
    {"add_generation_prompt", Where::kChats, Treatment::kRead},
    {"continue_final_message", Where::kChats, Treatment::kRead},
    {"chat_template_kwargs", Where::kChats, Treatment::kRead},
    {"documents", Where::kChats, Treatment::kRead},
    {"include_reasoning", Where::kChats, Treatment::kRead},
    {"spaces_between_special_tokens", Where::kBoth, Treatment::kHint},
    {"session_id", Where::kBoth, Treatment::kHint},
    {"stream_interval", Where::kBoth, Treatment::kHint},
    {"return_token_offsets", Where::kBoth, Treatment::kHint},
    {"return_mm_kwargs", Where::kBoth, Treatment::kHint},
    {"routed_experts_prompt_start", Where::kBoth, Treatment::kHint},
    {"media_io_kwargs", Where::kChats, Treatment::kHint},
    {"mm_processor_kwargs", Where::kChats, Treatment::kHint},
    {"thinking_token_budget", Where::kBoth, Treatment::kRefused, "-1 or left out: thoughts cannot be bounded apart"},
    {"use_beam_search", Where::kBoth, Treatment::kRefused},
    {"length_penalty", Where::kBoth, Treatment::kRefused},
    {"watermarking", Where::kBoth, Treatment::kRefused},
    {"logprob_token_ids", Where::kBoth, Treatment::kRefused, "left out; ask for the likeliest with top_logprobs"},
    {"allowed_token_ids", Where::kBoth, Treatment::kRefused, "left out; logit_bias can rule tokens out"},
    {"bad_words", Where::kBoth, Treatment::kRefused, "left out; logit_bias can rule tokens out"},
    {"repetition_detection", Where::kBoth, Treatment::kRefused},
    {"logits_processors", Where::kBoth, Treatment::kRefused},
    {"vllm_xargs", Where::kBoth, Treatment::kRefused},
    {"structured_outputs", Where::kBoth, Treatment::kRefused, kNoGrammars},
    {"guided_json", Where::kBoth, Treatment::kRefused, kNoGrammars},
    {"guided_regex", Where::kBoth, Treatment::kRefused, kNoGrammars},
    {"guided_choice", Where::kBoth, Treatment::kRefused, kNoGrammars},
    {"guided_grammar", Where::kBoth, Treatment::kRefused, kNoGrammars},
    {"guided_decoding_backend", Where::kBoth, Treatment::kHint},
    {"guided_whitespace_pattern", Where::kBoth, Treatment::kHint},
    {"chat_template", Where::kChats, Treatment::kRefused, "left out; the server's --chat-template sets it"},
    {"prompt_embeds", Where::kCompletions, Treatment::kRefused},
    {"kv_transfer_params", Where::kBoth, Treatment::kRefused},
    {"ec_transfer_params", Where::kBoth, Treatment::kRefused},
    {"return_token_ids", Where::kBoth, Treatment::kRefused, "left out; /tokenize gives ids"},
    {"return_prompt_text", Where::kChats, Treatment::kRefused, "left out; /tokenize shows the prompt's tokens"},
    // Other servers'
    {"thinking", Where::kChats, Treatment::kRefused, kTemplateKwargs},
    {"enable_thinking", Where::kChats, Treatment::kRefused, kTemplateKwargs},
    {"separate_reasoning", Where::kChats, Treatment::kRefused, "left out; include_reasoning is what there is"},
    {"regex", Where::kBoth, Treatment::kRefused, kNoGrammars},
    {"ebnf", Where::kBoth, Treatment::kRefused, kNoGrammars},
    {"grammar", Where::kBoth, Treatment::kRefused, kNoGrammars},
    {"json_schema", Where::kBoth, Treatment::kRefused, kNoGrammars},
    {"lora_path", Where::kBoth, Treatment::kRefused},
    {"typical_p", Where::kBoth, Treatment::kRefused},
    {"top_a", Where::kBoth, Treatment::kRefused},
    {"no_repeat_ngram_size", Where::kBoth, Treatment::kRefused},
};

bool is_of(const Field& field, Endpoint endpoint) {
  return field.where == Where::kBoth || (field.where == Where::kChats) == (endpoint == Endpoint::kChats);
}

// Whether the value of a refused field asks for nothing, or for what is done anyway.
bool asks_for_nothing(std::string_view name, const json::value& value) {
  if (value.is_null() || value == json::value(false)) return true;
  if (value.is_string()) {
    const std::string_view word = value.get_string();
    return word.empty() || (name == "tool_choice" && (word == "none" || word == "auto")) ||
           (name == "verbosity" && word == "medium") || (name == "function_call" && (word == "none" || word == "auto"));
  }
  if (value.is_array()) {
    const json::array& list = value.get_array();
    return list.empty() || (name == "modalities" && list.size() == 1 && list[0] == json::value("text"));
  }
  if (value.is_object()) {
    const json::object& object = value.get_object();
    if (object.empty()) return true;
    const json::value* type = object.if_contains("type");
    return name == "response_format" && type && *type == json::value("text");
  }
  if (!value.is_number()) return name == "separate_reasoning";  // true
  const auto number = value.to_number<double>();
  return (name == "length_penalty" && number == 1) || (name == "thinking_token_budget" && number == -1) ||
         (name == "typical_p" && number == 1) || (name == "no_repeat_ngram_size" && number == 0);
}

// A client can make up names without end.
void name_once(std::string_view name) {
  constexpr size_t kMaxNames = 256;
  static std::mutex mutex;
  static std::set<std::string, std::less<>> named;
  {
    const std::lock_guard lock(mutex);
    if (named.size() >= kMaxNames || !named.emplace(name).second) return;
  }
  log::warn("requests have a field {}, which is not known here and is ignored (said once)", quoted(name));
}

}  // namespace

void check_field_names(const json::object& object, JsonKeys& keys, Endpoint endpoint) {
  for (const auto& [key, value] : object) {
    const std::string_view name(key.data(), key.size());
    const auto* field =
        std::ranges::find_if(kFields, [&](const Field& known) { return known.name == name && is_of(known, endpoint); });
    if (field == std::end(kFields))
      name_once(name);
    else if (field->treatment == Treatment::kRefused && !asks_for_nothing(name, value))
      keys.fault(name, "is given", field->instead, ErrorCode::kUnsupported);
  }
}

}  // namespace cachalot::openai
