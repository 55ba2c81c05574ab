#include "openai/request/transcript.h"

namespace cachalot::openai {

namespace json = boost::json;

std::string_view text_at(const json::object& object, std::string_view key) {
  const json::value* value = object.if_contains(key);
  return value && value->is_string() ? std::string_view(value->get_string()) : std::string_view();
}

void Transcript::say(std::string_view role, std::string_view text) {
  if (!messages_.empty() && messages_.back().at("role").as_string() == role) {
    json::string& before = messages_.back().at("content").as_string();
    before += "\n\n";
    before += text;
  } else {
    messages_.push_back({{"role", role}, {"content", text}});
  }
}

void Transcript::say_as_system(std::string_view text) {
  const bool is_beginning = messages_.empty() || messages_.back().at("role") == "system";
  say(is_beginning ? "system" : "user", text);
}

void Transcript::say_as_user(std::string_view text) {
  say("user", text);
}

json::object& Transcript::assistant(bool is_silent) {
  if (!messages_.empty()) {
    json::object& last = messages_.back().get_object();
    const bool has_acted = last.contains("tool_calls") || !last.at("content").get_string().empty();
    if (last.at("role") == "assistant" && !(is_silent && has_acted)) return last;
  }
  messages_.push_back({{"role", "assistant"}, {"content", ""}});
  return messages_.back().get_object();
}

void Transcript::think(std::string_view thought) {
  json::object& message = assistant(true);
  std::string all;
  if (const json::value* before = message.if_contains("reasoning")) all = before->get_string();
  all += thought;
  // vLLM's newer name and the older one; templates know one or the other.
  message["reasoning_content"] = all;
  message["reasoning"] = all;
}

void Transcript::answer(std::string_view text) {
  assistant(true)["content"] = text;
}

void Transcript::call(std::string_view id, std::string_view name, std::string_view arguments) {
  json::object& message = assistant(false);
  json::value& calls = message["tool_calls"];
  if (calls.is_null()) calls.emplace_array();
  calls.get_array().push_back(
      {{"type", "function"}, {"function", {{"name", name}, {"arguments", arguments}}}, {"id", id}});
  names_.insert_or_assign(std::string(id), std::string(name));
}

void Transcript::give_result(std::string_view call_id, std::string_view text) {
  json::object message = {{"role", "tool"}, {"content", text}, {"tool_call_id", call_id}};
  if (const auto name = names_.find(call_id); name != names_.end()) message["name"] = name->second;
  messages_.push_back(std::move(message));
}

}  // namespace cachalot::openai
