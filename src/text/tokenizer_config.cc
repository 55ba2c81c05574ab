#include "text/tokenizer_config.h"

#include <boost/json.hpp>
#include <string_view>
#include <utility>

#include "base/file.h"
#include "base/text.h"
#include "config/json_keys.h"
#include "config/model_folder.h"

namespace cachalot {
namespace {

namespace json = boost::json;

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

}  // namespace cachalot
