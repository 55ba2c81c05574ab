#include "text/chat_template.h"

#include <algorithm>
#include <boost/json/object.hpp>
#include <boost/json/parse.hpp>
#include <utility>

#include "base/file.h"
#include "config/json.h"
#include "text/folder_config.h"
#include "text/formats/kimi_tools.h"
#include "text/formats/own_templates.h"
#include "text/rust_bridge.h"

namespace cachalot {

namespace json = boost::json;

namespace {

// By config.json, of which the rest is read elsewhere.
const OwnTemplate* own_template(const std::string& model_folder) {
  const Result<std::string> text = read_file(model_folder + "/config.json");
  if (!text) return nullptr;
  const Result<json::object> config = parse_json_object(*text, model_folder + "/config.json");
  const json::value* type = config ? config->if_contains("model_type") : nullptr;
  const auto own = std::ranges::find_if(kOwnTemplates, [&](const OwnTemplate& each) {
    return type && type->is_string() && type->get_string() == each.model_type;
  });
  return own == std::end(kOwnTemplates) ? nullptr : own;
}

}  // namespace

void ChatTemplate::Deleter::operator()(cachalot_template* handle) const {
  cachalot_template_free(handle);
}

Result<std::unique_ptr<ChatTemplate>> ChatTemplate::load(const std::string& model_folder) {
  ASSIGN_OR_RETURN(TokenizerConfig config, load_tokenizer_config(model_folder));
  if (!config.chat_template) {
    if (const OwnTemplate* own = own_template(model_folder)) {
      ASSIGN_OR_RETURN(std::unique_ptr<ChatTemplate> chat_template,
                       from_source(own->source, config.bos_token, config.eos_token));
      chat_template->is_own_ = true;
      return chat_template;
    }
    return make_error(ErrorCode::kNotFound,
                      "{}: no chat template, neither as chat_template in tokenizer_config.json nor as "
                      "chat_template.jinja",
                      model_folder);
  }
  Result<std::unique_ptr<ChatTemplate>> chat_template =
      from_source(*config.chat_template, config.bos_token, config.eos_token);
  if (!chat_template) chat_template.error().message.insert(0, config.template_file + ": ");
  return chat_template;
}

Result<std::unique_ptr<ChatTemplate>> ChatTemplate::from_file_or_text(const std::string& file_or_text,
                                                                      const std::string& tokenizer_folder) {
  ASSIGN_OR_RETURN(const TokenizerConfig config, load_tokenizer_config(tokenizer_folder));
  const bool is_text = file_or_text.contains("{{") || file_or_text.contains("{%") || file_or_text.contains('\n');
  std::string source = file_or_text;
  if (!is_text) {
    ASSIGN_OR_RETURN(source, read_file(file_or_text));
  }
  Result<std::unique_ptr<ChatTemplate>> chat_template = from_source(source, config.bos_token, config.eos_token);
  if (!chat_template && !is_text) chat_template.error().message.insert(0, file_or_text + ": ");
  return chat_template;
}

Result<std::unique_ptr<ChatTemplate>> ChatTemplate::from_source(std::string_view source, std::string_view bos_token,
                                                                std::string_view eos_token) {
  std::unique_ptr<ChatTemplate> chat_template(new ChatTemplate);
  cachalot_template* handle = nullptr;
  std::string error;
  const cachalot_text_status status =
      cachalot_template_new(as_view(source), as_view(bos_token), as_view(eos_token), &handle, sink_into(error));
  RETURN_IF_ERROR(to_status(status, "chat template", error));
  chat_template->handle_.reset(handle);
  chat_template->tool_calls_ = tool_call_syntax_of_template(source);
  // Kimi's: the code beside its tokenizers sorts the tools, and that of K2.5 and later declares them in TypeScript.
  chat_template->reads_typescript_ = source.contains("tools_ts_str");
  chat_template->sorts_tools_ = chat_template->reads_typescript_ || source.contains("<|im_system|>tool_declare");
  chat_template->try_calls();
  return chat_template;
}

Result<std::string> ChatTemplate::render(std::string_view context_json) const {
  std::string text, error;
  const cachalot_text_status status =
      cachalot_template_render(handle_.get(), as_view(context_json), sink_into(text), sink_into(error));
  RETURN_IF_ERROR(to_status(status, "chat template", error));
  return text;
}

namespace {

bool has_calls(const json::value& message) {
  const json::object* object = message.if_object();
  return object && object->contains("tool_calls");
}

// Arguments that are no JSON object stand in one, under the name that DeepSeek's own encoder gives them.
json::value as_object(const json::value& arguments) {
  boost::system::error_code error;
  json::value parsed = json::parse(arguments.get_string(), error, {}, {.max_depth = 64});
  if (error || !parsed.is_object()) return json::object{{"arguments", arguments}};
  return parsed;
}

}  // namespace

void ChatTemplate::try_calls() {
  constexpr std::string_view kName = "probe_of_calls", kArguments = R"({"probe_key": "probe_value"})";
  const auto shows_call = [&](std::string_view shown) {
    const json::object function = {{"name", kName}, {"description", ""}, {"parameters", json::object()}};
    const json::array calls = {{{"id", "functions.probe_of_calls:0"},
                                {"type", "function"},
                                {"function", {{"name", kName}, {"arguments", kArguments}}}}};
    const json::array messages = {{{"role", "user"}, {"content", "?"}},
                                  {{"role", "assistant"}, {"content", ""}, {"tool_calls", calls}}};
    const Result<std::string> text =
        render(json_text(json::object{{"messages", messages_as_wanted(messages)},
                                      {"tools", json::array{{{"type", "function"}, {"function", function}}}}}));
    return text && text->contains(shown);
  };
  if (shows_call(kArguments)) return;
  for (const auto& [wants_null, wants_objects] : {std::pair(false, true), {true, false}, {true, true}}) {
    wants_null_ = wants_null, wants_objects_ = wants_objects;
    if (shows_call(wants_objects ? "probe_value" : kArguments)) return;
  }
  wants_null_ = wants_objects_ = false;
}

json::array ChatTemplate::messages_as_wanted(const json::array& messages) const {
  json::array wanted = messages;
  for (json::value& message : wanted) {
    json::object& object = message.get_object();
    if (object["role"] == "developer" && !is_own_) object["role"] = "system";
    if (!has_calls(message)) continue;
    if (wants_null_ && object["content"] == "") object["content"] = nullptr;
    if (!wants_objects_) continue;
    for (json::value& call : object["tool_calls"].get_array()) {
      json::value& arguments = call.at("function").at("arguments");
      arguments = as_object(arguments);
    }
  }
  return wanted;
}

void ChatTemplate::complete(json::object& context) const {
  const json::value* tools = context.if_contains("tools");
  if (sorts_tools_ && tools) context["tools"] = json::value(sorted_deeply(*tools));
  if (!reads_typescript_) return;
  context.emplace("thinking", true);
  context.emplace("preserve_thinking", false);
  tools = context.if_contains("tools");
  const json::array* list = tools ? tools->if_array() : nullptr;
  if (const auto declared = list ? tools_in_typescript(*list) : std::nullopt)
    context.emplace("tools_ts_str", *declared);
}

}  // namespace cachalot
