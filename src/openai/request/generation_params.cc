#include "openai/request/generation_params.h"

#include <algorithm>
#include <boost/json/parse.hpp>
#include <cmath>
#include <limits>
#include <mutex>
#include <set>

#include "base/log.h"
#include "base/text.h"
#include "config/json.h"
#include "openai/request/structured_outputs.h"

namespace cachalot::openai {

namespace json = boost::json;

namespace {

constexpr int kMaxInt = std::numeric_limits<int>::max();

void read_float(JsonKeys& keys, std::string_view key, float& field, double min, double max) {
  double value = field;
  keys.optional(key, value, min, max);
  field = static_cast<float>(value);
}

void apply_defaults(const GenerationConfig& defaults, SamplingParams& sampling) {
  const auto apply = [](const auto& value, auto& field) {
    if (value) field = static_cast<std::remove_reference_t<decltype(field)>>(*value);
  };
  apply(defaults.temperature, sampling.temperature);
  apply(defaults.top_p, sampling.top_p);
  apply(defaults.top_k, sampling.top_k);
  apply(defaults.min_p, sampling.min_p);
  apply(defaults.repetition_penalty, sampling.repetition_penalty);
  if (defaults.do_sample == false) sampling.temperature = 0;
}

void read_sampling(JsonKeys& keys, const RequestLimits& limits, SamplingParams& sampling) {
  read_float(keys, "temperature", sampling.temperature, 0, 2);
  read_float(keys, "top_p", sampling.top_p, 0, 1);
  if (sampling.top_p == 0) keys.fault("top_p", "is 0", "greater than 0 and at most 1");
  // vLLM writes "all" as -1, too.
  keys.optional("top_k", sampling.top_k, -1, kMaxInt);
  sampling.top_k = std::max(sampling.top_k, 0);
  read_float(keys, "min_p", sampling.min_p, 0, 1);
  read_float(keys, "presence_penalty", sampling.presence_penalty, -2, 2);
  read_float(keys, "frequency_penalty", sampling.frequency_penalty, -2, 2);
  read_float(keys, "repetition_penalty", sampling.repetition_penalty, 0, 100);
  if (sampling.repetition_penalty == 0) keys.fault("repetition_penalty", "is 0", "greater than 0");
  keys.optional("min_tokens", sampling.min_tokens, 0, limits.max_model_len);
  keys.optional("prompt_logprobs", sampling.num_prompt_logprobs, 0, limits.max_logprobs);
}

void read_logit_bias(JsonKeys& keys, const RequestLimits& limits, SamplingParams& sampling) {
  const json::object* biases = keys.object("logit_bias");
  if (!biases) return;
  const int vocab_size = limits.vocab_size;
  if (biases->size() > static_cast<size_t>(limits.max_logit_biases))
    return keys.fault("logit_bias", fmt::format("names {} tokens", biases->size()),
                      fmt::format("an object of at most {}", limits.max_logit_biases));
  for (const auto& [key, value] : *biases) {
    const TokenId token = parse_number<TokenId>(key).value_or(-1);
    if (token < 0 || token >= vocab_size)
      return keys.fault("logit_bias", "names the token " + quoted(std::string_view(key.data(), key.size())),
                        fmt::format("an object of token ids below {}", vocab_size));
    if (!value.is_number() || std::fabs(value.to_number<double>()) > 100)
      return keys.fault("logit_bias", "holds " + json_text(value), "numbers from -100 to 100");
    sampling.logit_bias.emplace_back(token, static_cast<float>(value.to_number<double>()));
  }
}

void read_seed(JsonKeys& keys, std::optional<uint64_t>& seed) {
  const json::value* value = keys.find("seed");
  if (!value) return;
  // A negative one is as good a seed as its two's complement.
  if (value->is_int64())
    seed = static_cast<uint64_t>(value->get_int64());
  else if (value->is_uint64())
    seed = value->get_uint64();
  else
    keys.fault("seed", "is " + json_text(*value), "a whole number of 64 bits");
}

void read_stop_token_ids(JsonKeys& keys, const RequestLimits& limits, std::vector<TokenId>& ids) {
  const json::value* value = keys.find("stop_token_ids");
  if (!value) return;
  if (!value->is_array() || value->get_array().size() > static_cast<size_t>(limits.max_stop_token_ids))
    keys.fault("stop_token_ids", "is something else",
               fmt::format("a list of at most {} token ids", limits.max_stop_token_ids));
  else
    read_token_ids(value->get_array(), "stop_token_ids", keys, limits.vocab_size, ids);
}

void read_choices(JsonKeys& keys, const RequestLimits& limits, GenerationParams& params) {
  keys.optional("n", params.num_choices, 1, limits.max_choices);
  params.best_of = params.num_choices;
  keys.optional("best_of", params.best_of, 1, limits.max_choices);
  if (params.best_of < params.num_choices)
    keys.fault("best_of", fmt::format("is {}", params.best_of), fmt::format("at least n, {}", params.num_choices));
}

void read_forbidden(JsonKeys& keys, const RequestLimits& limits, GenerationParams& params) {
  if (const json::value* allowed = keys.find("allowed_token_ids")) {
    if (!allowed->is_array() || allowed->get_array().empty() ||
        allowed->get_array().size() > static_cast<size_t>(limits.vocab_size))
      keys.fault("allowed_token_ids", "is something else", "a list of token ids, at least one");
    else
      read_token_ids(allowed->get_array(), "allowed_token_ids", keys, limits.vocab_size,
                     params.sampling.allowed_token_ids);
  }
  keys.optional("bad_words", params.bad_words);
  if (params.bad_words.size() > static_cast<size_t>(limits.max_bad_words))
    keys.fault("bad_words", fmt::format("holds {} words", params.bad_words.size()),
               fmt::format("at most {}", limits.max_bad_words));
  for (const std::string& word : params.bad_words)
    if (word.empty() || word.size() > static_cast<size_t>(limits.max_stop_string_bytes))
      keys.fault("bad_words", fmt::format("holds a word of {} bytes", word.size()),
                 fmt::format("words of 1 to {} bytes", limits.max_stop_string_bytes));
}

void read_stream(JsonKeys& keys, GenerationParams& params) {
  keys.optional("stream", params.stream);
  const json::object* options = keys.object("stream_options");
  if (!options) return;
  if (!params.stream) keys.fault("stream_options", "is given", "left out unless stream is true");
  for (auto [name, field] : {std::pair("include_usage", &params.include_usage),
                             std::pair("continuous_usage_stats", &params.continuous_usage),
                             std::pair("include_progress", &params.include_progress)}) {
    const json::value* value = options->if_contains(name);
    if (!value || value->is_null()) continue;
    if (!value->is_bool())
      return keys.fault("stream_options", fmt::format("holds {}: {}", name, json_text(*value)),
                        "an object of true or false");
    *field = value->get_bool();
  }
}

}  // namespace

void read_generation_params(const json::object& object, JsonKeys& keys, const GenerationConfig& defaults,
                            const RequestLimits& limits, GenerationParams& params) {
  keys.optional("model", params.model);
  apply_defaults(defaults, params.sampling);
  read_sampling(keys, limits, params.sampling);
  read_logit_bias(keys, limits, params.sampling);
  read_seed(keys, params.seed);
  read_stop(keys, "stop", limits, params.stop);
  read_stop_token_ids(keys, limits, params.sampling.stop_token_ids);
  params.grammar = read_structured_outputs(keys);
  if (keys.find("max_tokens")) keys.optional("max_tokens", params.max_tokens.emplace(), 0, kMaxInt);
  if (params.max_tokens && params.sampling.min_tokens > *params.max_tokens)
    keys.fault("min_tokens", fmt::format("is {}", params.sampling.min_tokens),
               fmt::format("at most max_tokens, {}", *params.max_tokens));
  keys.optional("ignore_eos", params.ignore_eos);
  keys.optional("include_stop_str_in_output", params.include_stop);
  keys.optional("skip_special_tokens", params.skip_special_tokens);
  if (keys.find("return_tokens_as_token_ids"))
    keys.optional("return_tokens_as_token_ids", params.tokens_as_ids.emplace());
  if (keys.find("truncate_prompt_tokens")) {
    int& kept = params.truncate_prompt_tokens.emplace();
    keys.optional("truncate_prompt_tokens", kept, -1, kMaxInt);
    if (kept == 0) keys.fault("truncate_prompt_tokens", "is 0", "at least 1, or -1 for as many as the model takes");
  }
  std::string side = "left";
  keys.optional("truncation_side", side);
  if (side != "left" && side != "right") keys.fault("truncation_side", "is " + quoted(side), "left or right");
  params.truncates_end = side == "right";
  keys.optional("return_token_ids", params.return_ids);
  keys.optional("request_id", params.request_id);
  keys.optional("service_tier", params.service_tier);
  if (!params.service_tier.empty() && !has_word("auto default flex scale priority", params.service_tier))
    keys.fault("service_tier", "is " + quoted(params.service_tier), "auto, default, flex, scale or priority");
  read_choices(keys, limits, params);
  read_stream(keys, params);
  if (params.stream && params.best_of > params.num_choices)
    keys.fault("best_of", fmt::format("is {}", params.best_of), "equal to n when stream is true");
  read_forbidden(keys, limits, params);
  keys.optional("thinking_token_budget", params.thought_budget, -1, kMaxInt);
  if (params.stream && params.sampling.num_prompt_logprobs >= 0)
    keys.fault("prompt_logprobs", "is given", "left out when stream is true");
  keys.optional("priority", params.priority, std::numeric_limits<int>::min(), kMaxInt);
  keys.optional("cache_salt", params.cache_salt);
  if (const json::value* salt = object.if_contains("cache_salt");
      salt && salt->is_string() && params.cache_salt.empty())
    keys.fault("cache_salt", "is empty", "a string with something in it");
}

Status read_shared_params(const json::object& object, std::string_view words, const GenerationConfig& defaults,
                          const RequestLimits& limits, GenerationParams& params) {
  json::object shared;
  for (const auto& [key, value] : object)
    if (has_word(words, std::string_view(key.data(), key.size()))) shared[key] = value;
  JsonKeys keys(shared, kRequest);
  read_generation_params(shared, keys, defaults, limits, params);
  return keys.status();
}

void read_stop(JsonKeys& keys, std::string_view key, const RequestLimits& limits, std::vector<std::string>& stop) {
  const json::value* value = keys.find(key);
  if (!value) return;
  if (value->is_string())
    stop.emplace_back(value->get_string());
  else
    keys.optional(key, stop);
  if (stop.size() > static_cast<size_t>(limits.max_stop_strings))
    keys.fault(key, fmt::format("holds {} strings", stop.size()), fmt::format("at most {}", limits.max_stop_strings));
  for (const std::string& text : stop) {
    if (text.empty()) keys.fault(key, "holds an empty string", "strings that can be found");
    if (text.size() > static_cast<size_t>(limits.max_stop_string_bytes))
      keys.fault(key, fmt::format("holds a string of {} bytes", text.size()),
                 fmt::format("strings of at most {} bytes", limits.max_stop_string_bytes));
  }
}

ApiResult<json::object> parse_body(std::string_view body) {
  boost::system::error_code error;
  json::parse_options options;
  options.max_depth = 64;
  json::stream_parser parser({}, options);
  const size_t num_read = parser.write_some(body.data(), body.size(), error);
  if (!error && num_read < body.size()) error = json::error::extra_data;
  if (!error) parser.finish(error);
  if (error) return invalid_request(fmt::format("the body is not JSON: {} at byte {}", error.message(), num_read));
  json::value value = parser.release();
  if (!value.is_object()) return invalid_request("the body must be a JSON object");
  return std::move(value.get_object());
}

void read_token_ids(const json::array& list, std::string_view key, JsonKeys& keys, int vocab_size,
                    std::vector<TokenId>& ids) {
  ids.reserve(list.size());
  for (const json::value& item : list) {
    const int64_t* id = item.if_int64();
    if (!id || *id < 0 || *id >= vocab_size)
      return keys.fault(key, "holds " + json_text(item), fmt::format("token ids from 0 to {}", vocab_size - 1));
    ids.push_back(static_cast<TokenId>(*id));
  }
}

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
  if (request.prompts.size() * static_cast<size_t>(params.best_of) > static_cast<size_t>(limits.max_choices))
    keys.fault(params.best_of > params.num_choices ? "best_of" : "n",
               fmt::format("is {} for {} prompts", params.best_of, request.prompts.size()),
               fmt::format("such that there are at most {} choices", limits.max_choices));
  // An echoed prompt comes with its logprobs, too.
  if (request.echo && params.sampling.num_logprobs >= 0 && params.sampling.num_prompt_logprobs < 0)
    params.sampling.num_prompt_logprobs = params.sampling.num_logprobs;
  RETURN_IF_ERROR(keys.status());
  return request;
}

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
     "prompt_logprobs add_special_tokens priority request_id return_tokens_as_token_ids cache_salt response_format "
     "return_token_ids allowed_token_ids bad_words thinking_token_budget structured_outputs guided_json guided_regex "
     "guided_choice "
     "guided_grammar regex ebnf grammar json_schema"},
    {Where::kCompletions, Treatment::kRead, "prompt"},
    {Where::kChats, Treatment::kRead,
     "messages top_logprobs max_completion_tokens reasoning_effort add_generation_prompt continue_final_message "
     "chat_template_kwargs documents include_reasoning tools tool_choice parallel_tool_calls functions function_call "
     "thinking enable_thinking chat_template"},
    {Where::kBoth, Treatment::kHint,
     "user metadata store safety_identifier prompt_cache_key prompt_cache_retention spaces_between_special_tokens "
     "session_id stream_interval return_token_offsets return_mm_kwargs routed_experts_prompt_start "
     "guided_decoding_backend guided_whitespace_pattern vllm_xargs"},
    {Where::kChats, Treatment::kHint, "prediction media_io_kwargs mm_processor_kwargs"},
    {Where::kCompletions, Treatment::kRefused, "suffix prompt_embeds"},
    {Where::kChats, Treatment::kRefused, "modalities", "[\"text\"]"},
    {Where::kChats, Treatment::kRefused, "audio web_search_options"},
    {Where::kChats, Treatment::kRefused, "verbosity", "medium or left out; say in the messages how long answers are"},
    {Where::kBoth, Treatment::kRefused,
     "use_beam_search length_penalty watermarking repetition_detection logits_processors "
     "kv_transfer_params ec_transfer_params lora_path typical_p top_a no_repeat_ngram_size"},
    {Where::kBoth, Treatment::kRefused, "logprob_token_ids", "left out; ask for the likeliest with top_logprobs"},
    {Where::kChats, Treatment::kRefused, "return_prompt_text", "left out; /tokenize shows the prompt's tokens"},
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
    return word.empty() || (name == "verbosity" && word == "medium");
  }
  if (value.is_array()) {
    const json::array& list = value.get_array();
    return list.empty() || (name == "modalities" && list.size() == 1 && list[0] == json::value("text"));
  }
  if (value.is_object()) return value.get_object().empty();
  if (!value.is_number()) return name == "separate_reasoning";  // true
  const auto number = value.to_number<double>();
  return (name == "length_penalty" && number == 1) || (name == "typical_p" && number == 1) ||
         (name == "no_repeat_ngram_size" && number == 0);
}

void name_once(std::string_view name) {
  warn_once(fmt::format("requests have a field {}, which is not known here and is ignored (said once)", quoted(name)));
}

}  // namespace

std::vector<std::string> field_names(Endpoint endpoint) {
  std::vector<std::string> names;
  for (const Fields& fields : kFields)
    if (is_of(fields, endpoint) && fields.treatment == Treatment::kRead)
      std::ranges::move(words_of(fields.names), std::back_inserter(names));
  return names;
}

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

void check_field_names(const json::object& object, JsonKeys& keys, std::string_view known, std::string_view refused) {
  for (const auto& [key, value] : object) {
    const std::string_view name(key.data(), key.size());
    if (has_word(refused, name)) {
      if (!asks_for_nothing(name, value))
        keys.fault(name, "is given", "left out: it is not supported", ErrorCode::kUnsupported);
    } else if (!has_word(known, name)) {
      name_once(name);
    }
  }
}

void warn_once(const std::string& text) {
  constexpr size_t kMaxTexts = 256;
  static std::mutex mutex;
  static std::set<std::string, std::less<>> said;
  {
    const std::lock_guard lock(mutex);
    if (said.size() >= kMaxTexts || !said.insert(text).second) return;
  }
  log::warn("{}", text);
}

}  // namespace cachalot::openai
