#pragma once

#include <boost/json/object.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "config/json.h"
#include "core/request.h"
#include "openai/api_error.h"
#include "text/folder_config.h"
#include "text/grammar.h"

namespace cachalot::openai {

// How much one request may ask for.
struct RequestLimits {
  int vocab_size = 0;
  int max_model_len = 0;
  int max_logprobs = 20;
  int max_choices = 256;  // prompts x n
  int max_stop_strings = 16;
  int max_stop_string_bytes = 1024;
  int max_stop_token_ids = 1024;
  int max_logit_biases = 1024;
  int max_messages = 4096;
  int max_tools = 1024;
  int max_bad_words = 256;
  bool trusts_chat_template = false;  // requests may bring their own
};

// The fields that the completions and the chat endpoint share.
struct GenerationParams {
  std::string model;        // as the client wrote it; may be empty
  SamplingParams sampling;  // max_tokens, seed and choice are not yet set; stop ids are the explicit ones
  std::optional<int> max_tokens;
  std::optional<uint64_t> seed;
  int num_choices = 1;  // n
  int best_of = 1;      // so many are generated, and the n likeliest given
  std::vector<std::string> bad_words;
  int thought_budget = -1;  // tokens of the thought; -1: as many as it likes
  std::vector<std::string> stop;
  std::optional<GrammarText> grammar;  // that the answer must be of, behind its thought
  bool ignore_eos = false;
  bool include_stop = false;  // include_stop_str_in_output
  bool skip_special_tokens = true;
  std::optional<bool> tokens_as_ids;  // return_tokens_as_token_ids
  std::optional<int> truncate_prompt_tokens;
  bool truncates_end = false;  // truncation_side: the prompt's beginning is kept
  std::string request_id, service_tier;
  bool stream = false, include_usage = false, continuous_usage = false, include_progress = false;
  bool return_ids = false;  // return_token_ids
  int priority = 0;
  std::string cache_salt;
};

enum class Endpoint { kCompletions, kChats };

// The names of the fields that do something.
std::vector<std::string> field_names(Endpoint endpoint);

// Every field that vLLM's and OpenAI's requests have is understood here, is of no consequence, or is refused by name
// unless its value asks for nothing (null, false, []). Only fields that nobody knows are ignored, and each of them is
// named once in the log.
void check_field_names(const boost::json::object& object, JsonKeys& keys, Endpoint endpoint);

// The same for an endpoint with fields of its own, with names between spaces; those that are `known` are read by others
// or of no consequence.
void check_field_names(const boost::json::object& object, JsonKeys& keys, std::string_view known,
                       std::string_view refused);
// A warning in the log, once for each text; only so many, as a client can make up texts without end.
void warn_once(const std::string& text);

// Reads them. `keys` stands on `object`.
void read_generation_params(const boost::json::object& object, JsonKeys& keys, const GenerationConfig& defaults,
                            const RequestLimits& limits, GenerationParams& params);

// The same for an endpoint that has some of the fields, which `words` names.
Status read_shared_params(const boost::json::object& object, std::string_view words, const GenerationConfig& defaults,
                          const RequestLimits& limits, GenerationParams& params);

// Under another name than stop.
void read_stop(JsonKeys& keys, std::string_view key, const RequestLimits& limits, std::vector<std::string>& stop);

// The body as a JSON object.
ApiResult<boost::json::object> parse_body(std::string_view body);

// A list of token ids, each one of the vocabulary.
void read_token_ids(const boost::json::array& list, std::string_view key, JsonKeys& keys, int vocab_size,
                    std::vector<TokenId>& ids);

// Why requests are refused has one wording for all: "request: temperature is 9; it must be a number from 0 to 2".
inline constexpr const char* kRequest = "request";

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
