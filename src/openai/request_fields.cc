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

struct Fields {
  Where where;
  Treatment treatment;
  std::string_view names;                                      // between spaces; OpenAI's, vLLM's, other servers'
  std::string_view instead = "left out: it is not supported";  // of a refused one: what would be right
};

constexpr Fields kFields[] = {
    {Where::kBoth, Treatment::kRead,
     "model n best_of echo frequency_penalty presence_penalty logit_bias logprobs max_tokens seed stop stream "
     "stream_options temperature top_p service_tier top_k min_p repetition_penalty stop_token_ids "
     "include_stop_str_in_output ignore_eos min_tokens skip_special_tokens truncate_prompt_tokens truncation_side "
     "prompt_logprobs add_special_tokens priority request_id return_tokens_as_token_ids cache_salt"},
    {Where::kCompletions, Treatment::kRead, "prompt"},
    {Where::kChats, Treatment::kRead,
     "messages top_logprobs max_completion_tokens reasoning_effort add_generation_prompt continue_final_message "
     "chat_template_kwargs documents include_reasoning"},
    {Where::kBoth, Treatment::kHint,
     "user metadata store safety_identifier prompt_cache_key prompt_cache_retention spaces_between_special_tokens "
     "session_id stream_interval return_token_offsets return_mm_kwargs routed_experts_prompt_start "
     "guided_decoding_backend guided_whitespace_pattern"},
    {Where::kChats, Treatment::kHint, "prediction parallel_tool_calls media_io_kwargs mm_processor_kwargs"},
    {Where::kCompletions, Treatment::kRefused, "suffix prompt_embeds"},
    {Where::kChats, Treatment::kRefused, "tools functions function_call", "left out: tools are not supported"},
    {Where::kChats, Treatment::kRefused, "tool_choice", "none or auto: tools are not supported"},
    {Where::kBoth, Treatment::kRefused, "response_format", "of type text: constrained answers are not supported"},
    {Where::kChats, Treatment::kRefused, "modalities", "[\"text\"]"},
    {Where::kChats, Treatment::kRefused, "audio web_search_options"},
    {Where::kChats, Treatment::kRefused, "verbosity", "medium or left out; say in the messages how long answers are"},
    {Where::kBoth, Treatment::kRefused, "thinking_token_budget", "-1 or left out: thoughts cannot be bounded apart"},
    {Where::kBoth, Treatment::kRefused,
     "use_beam_search length_penalty watermarking repetition_detection logits_processors vllm_xargs "
     "kv_transfer_params ec_transfer_params lora_path typical_p top_a no_repeat_ngram_size"},
    {Where::kBoth, Treatment::kRefused, "logprob_token_ids", "left out; ask for the likeliest with top_logprobs"},
    {Where::kBoth, Treatment::kRefused, "allowed_token_ids bad_words", "left out; logit_bias can rule tokens out"},
    {Where::kBoth, Treatment::kRefused,
     "structured_outputs guided_json guided_regex guided_choice guided_grammar regex ebnf grammar json_schema",
     "left out: constrained answers are not supported"},
    {Where::kChats, Treatment::kRefused, "chat_template", "left out; the server's --chat-template sets it"},
    {Where::kBoth, Treatment::kRefused, "return_token_ids", "left out; /tokenize gives ids"},
    {Where::kChats, Treatment::kRefused, "return_prompt_text", "left out; /tokenize shows the prompt's tokens"},
    {Where::kChats, Treatment::kRefused, "thinking enable_thinking",
     "given in chat_template_kwargs, if the model's template knows it"},
    {Where::kChats, Treatment::kRefused, "separate_reasoning", "left out; include_reasoning is what there is"},
};

bool is_of(const Fields& fields, Endpoint endpoint) {
  return fields.where == Where::kBoth || (fields.where == Where::kChats) == (endpoint == Endpoint::kChats);
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
    const auto* const fields = std::ranges::find_if(
        kFields, [&](const Fields& known) { return is_of(known, endpoint) && has_word(known.names, name); });
    if (fields == std::end(kFields))
      name_once(name);
    else if (fields->treatment == Treatment::kRefused && !asks_for_nothing(name, value))
      keys.fault(name, "is given", fields->instead, ErrorCode::kUnsupported);
  }
}

}  // namespace cachalot::openai
