#include "text/folder_config.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <boost/json.hpp>
#include <limits>
#include <string_view>
#include <utility>

#include "base/file.h"
#include "base/text.h"
#include "config/json.h"
#include "config/model_folder.h"

namespace cachalot {

namespace json = boost::json;

namespace {

// A special token is written as a string or as an object with its content.
Status read_token(JsonKeys& keys, std::string_view key, std::string& token) {
  const json::value* value = keys.find(key);
  if (!value || !value->is_object()) {
    keys.optional(key, token);
    return keys.status();
  }
  JsonKeys object = keys.nested(key, value->get_object());
  object.optional("content", token);
  return object.status();
}

// {"163586": {"content": "<|im_end|>", "special": true}}
Result<std::vector<TokenizerConfig::AddedToken>> read_added_tokens(JsonKeys keys) {
  constexpr std::string_view kKey = "added_tokens_decoder";
  std::vector<TokenizerConfig::AddedToken> tokens;
  const json::object* list = keys.object(kKey);
  RETURN_IF_ERROR(keys.status());
  if (!list) return tokens;
  for (const auto& [key, value] : *list) {
    const auto id = parse_number<TokenId>(key);
    const json::object* object = value.if_object();
    const json::value* text = object ? object->if_contains("content") : nullptr;
    if (!id || *id < 0 || !text || !text->is_string()) {
      keys.fault(kKey, fmt::format("holds {}: {}", quoted(key), shown(value)), "ids, each with its content");
      break;
    }
    const json::value* special = object->if_contains("special");
    tokens.push_back({*id, std::string(text->get_string()), special && *special == json::value(true)});
  }
  RETURN_IF_ERROR(keys.status());
  return tokens;
}

// One template, or a list of named ones, of which "default" is meant.
void read_chat_template(JsonKeys& keys, std::optional<std::string>& chat_template) {
  constexpr std::string_view kKey = "chat_template",
                             kWanted = "a string, or a list of {name, template} with an entry named \"default\"";
  const json::value* value = keys.find(kKey);
  if (!value) return;
  if (value->is_string()) {
    chat_template = std::string(value->get_string());
    return;
  }
  std::vector<std::string> names;
  if (value->is_array()) {
    for (const json::value& item : value->get_array()) {
      if (!item.is_object()) return keys.fault(kKey, "holds " + shown(item), kWanted);
      std::string name, source;
      JsonKeys named = keys.nested(kKey, item.get_object());
      named.optional("name", name);
      named.optional("template", source);
      if (const Status status = named.status(); !status) return keys.fault(kKey, "holds " + shown(item), kWanted);
      if (name == "default") {
        chat_template = std::move(source);
        return;
      }
      names.push_back(name);
    }
  }
  keys.fault(
      kKey,
      value->is_array() ? fmt::format("has no default template (it has: {})", listed(names)) : "is " + shown(*value),
      kWanted);
}

Result<std::optional<std::string>> read_optional_file(const std::string& path) {
  Result<std::string> text = read_file(path);
  if (text) return std::move(*text);
  if (text.error().code == ErrorCode::kNotFound) return std::nullopt;
  return std::unexpected(text.error());
}

Result<TokenizerConfig> parse(const std::string& text, const std::string& path) {
  ASSIGN_OR_RETURN(const json::object root, parse_json_object(text, path));
  TokenizerConfig config;
  JsonKeys keys(root, path);
  if (root.contains("chat_template")) config.template_file = path;
  RETURN_IF_ERROR(read_token(keys, "bos_token", config.bos_token));
  RETURN_IF_ERROR(read_token(keys, "eos_token", config.eos_token));
  if (keys.find("add_bos_token")) keys.optional("add_bos_token", config.add_bos_token.emplace());
  if (const json::value* name = keys.find("tokenizer_class"); name && name->is_string())
    config.tokenizer_class = std::string(name->get_string());
  config.added_tokens = read_added_tokens(keys);
  read_chat_template(keys, config.chat_template);
  RETURN_IF_ERROR(keys.status());
  return config;
}

}  // namespace

Result<TokenizerConfig> load_tokenizer_config(const std::string& model_folder) {
  const std::string path = model_folder + "/tokenizer_config.json";
  TokenizerConfig config;
  ASSIGN_OR_RETURN(const std::optional<std::string> text, read_optional_file(path));
  if (text) {
    ASSIGN_OR_RETURN(config, parse(*text, path));
  }
  ASSIGN_OR_RETURN(std::optional<std::string> jinja, read_optional_file(model_folder + "/chat_template.jinja"));
  if (jinja) {
    const std::string jinja_path = model_folder + "/chat_template.jinja";
    if (const std::string other = other_kind(jinja->substr(0, 512)); !other.empty())
      return make_error(ErrorCode::kCorrupt, "{}: no chat template: it is {}", jinja_path, other);
    config.chat_template = std::move(jinja);
    config.template_file = jinja_path;
  }
  return config;
}

namespace {

constexpr int kMaxInt = std::numeric_limits<int>::max();

template <class T, class... Range>
void read(JsonKeys& keys, std::string_view key, std::optional<T>& field, Range... range) {
  if (keys.find(key)) keys.optional(key, field.emplace(), range...);
}

constexpr std::string_view kRead =
    "do_sample temperature top_p min_p repetition_penalty top_k max_new_tokens eos_token_id";

// Values of the keys that are not read, which would change an answer elsewhere; null and what is listed change nothing.
bool changes_answers(std::string_view key, const json::value& value) {
  constexpr std::string_view kHarmless =
      "_from_model_config transformers_version bos_token_id pad_token_id decoder_start_token_id use_cache "
      "cache_implementation output_attentions output_hidden_states output_scores output_logits "
      "return_dict_in_generate trust_remote_code cache_config prefill_chunk_size is_assistant low_memory max_length "
      "max_time";
  constexpr std::string_view kFactors =
      "typical_p length_penalty num_beams num_beam_groups num_return_sequences encoder_repetition_penalty "
      "guidance_scale";
  if (value.is_null() || has_word(kHarmless, key)) return false;
  if (value.is_bool()) return value.get_bool();
  if (value.is_array()) return !value.get_array().empty();
  if (value.is_object()) return !value.get_object().empty();
  if (value.is_string()) return !value.get_string().empty();
  return value.to_number<double>() != (has_word(kFactors, key) ? 1 : 0);
}

void note_others(const json::object& object, const std::string& path, GenerationConfig& config) {
  std::vector<std::string> others;
  for (const auto& [key, value] : object)
    if (!has_word(kRead, key) && changes_answers(key, value))
      others.push_back(fmt::format("{} {}", std::string_view(key), shown(value)));
  if (!others.empty()) config.notes.push_back(fmt::format("{}: these play no part here: {}", path, listed(others, 12)));
}

}  // namespace

Result<GenerationConfig> parse_generation_config(const std::string& text, const std::string& path, int vocab_size) {
  ASSIGN_OR_RETURN(const json::object root, parse_json_object(text, path));
  GenerationConfig config;
  JsonKeys keys(root, path);
  read(keys, "do_sample", config.do_sample);
  // What a request could not do either is refused here, not there.
  constexpr double kLeast = 1e-6;
  read(keys, "temperature", config.temperature, 0.0, 100.0);
  read(keys, "top_p", config.top_p, kLeast, 1.0);
  read(keys, "min_p", config.min_p, 0.0, 1.0);
  read(keys, "repetition_penalty", config.repetition_penalty, kLeast, 100.0);
  read(keys, "top_k", config.top_k, -1, kMaxInt);
  if (config.top_k == -1) config.top_k = 0;
  read(keys, "max_new_tokens", config.max_new_tokens, 1, kMaxInt);
  keys.optional_ids("eos_token_id", config.eos_token_ids, vocab_size);
  RETURN_IF_ERROR(keys.status());
  note_others(root, path, config);
  return config;
}

Status override_generation_config(const std::string& text, const std::string& source, int vocab_size,
                                  GenerationConfig& config) {
  ASSIGN_OR_RETURN(GenerationConfig over, parse_generation_config(text, source, vocab_size));
  const std::vector<std::string> known = words_of(kRead);
  const json::value root = json::parse(text);
  for (const auto& entry : root.get_object()) {
    const std::string key(entry.key());
    if (has_word(kRead, key)) continue;
    const std::string nearest = nearest_name(key, known);
    return make_parameter_error(source, "{}: {} is no sampling default; {}", source, cachalot::quoted(key),
                                nearest.empty() ? fmt::format("there are {}", fmt::join(known, ", "))
                                                : fmt::format("the nearest is {}", nearest));
  }
  const auto take = [](auto& field, auto& value) {
    if (value) field = value;
  };
  take(config.do_sample, over.do_sample);
  take(config.temperature, over.temperature);
  take(config.top_p, over.top_p);
  take(config.min_p, over.min_p);
  take(config.repetition_penalty, over.repetition_penalty);
  take(config.top_k, over.top_k);
  take(config.max_new_tokens, over.max_new_tokens);
  if (!over.eos_token_ids.empty()) config.eos_token_ids = std::move(over.eos_token_ids);
  return {};
}

Result<GenerationConfig> load_generation_config(const std::string& model_folder, int vocab_size) {
  const std::string path = model_folder + "/generation_config.json";
  ASSIGN_OR_RETURN(const std::optional<std::string> text, read_optional_file(path));
  return text ? parse_generation_config(*text, path, vocab_size) : GenerationConfig{};
}

}  // namespace cachalot
