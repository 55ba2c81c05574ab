#include "openai/responses/response_items.h"

#include <fmt/format.h>

#include <boost/json/parse.hpp>
#include <utility>

#include "base/text.h"
#include "openai/request/content.h"
#include "openai/responses/response_tools.h"

namespace cachalot::openai {

namespace json = boost::json;

namespace {

std::unexpected<ApiError> not_found(std::string_view id, const char* parameter) {
  return std::unexpected(ApiError(404, fmt::format("Previous response with id {} not found.", quoted(id)),
                                  "invalid_request_error", parameter, "previous_response_not_found"));
}

// Of what a request builds upon, which is read anew each time: as much as a body may have.
constexpr size_t kMostThreadBytes = 32 << 20;

// What was stored is sound, and as deep as a body may be and its own frame.
json::value parse_stored(const std::string& text) {
  return json::parse(text, {}, {.max_depth = 80});
}

// Reads input items into the messages of a conversation.
class ItemReader {
 public:
  ItemReader(JsonKeys& keys, Transcript& transcript) : keys_(keys), transcript_(transcript) {}

  void read(const json::value& value, const std::string& where) {
    const json::object* item = value.if_object();
    if (!item) return keys_.fault(where, "is not an object", "an item of the input");
    const std::string_view type = type_of(*item);
    if (type == "message") return read_message(*item, where);
    if (type == "function_call") return read_call(*item, where);
    if (type == "function_call_output") return read_output(*item, where);
    if (type == "reasoning") return read_thought(*item);
    keys_.fault(where + ".type", type.empty() ? "is missing" : "is " + quoted(type),
                "message, function_call, function_call_output, reasoning or item_reference", ErrorCode::kUnsupported);
  }

  static std::string_view type_of(const json::object& item) {
    const std::string_view type = text_at(item, "type");
    if (!type.empty()) return type;
    return item.contains("role") ? "message" : item.contains("id") ? "item_reference" : "";
  }

 private:
  bool read_texts(const json::value* content, const std::string& where, std::string& text) {
    return read_content(
        content, where,
        {.texts = "input_text output_text text refusal", .unseen = "input_image input_file input_audio"}, keys_, text);
  }

  void read_message(const json::object& item, const std::string& where) {
    const std::string_view role = text_at(item, "role");
    if (role.empty() || !has_word("user assistant system developer", role))
      return keys_.fault(where + ".role", role.empty() ? "is missing" : "is " + quoted(role),
                         "user, assistant, system or developer");
    std::string text;
    if (!read_texts(item.if_contains("content"), where + ".content", text)) return;
    if (role == "assistant")
      transcript_.answer(text);
    else if (role == "user")
      transcript_.say_as_user(text);
    else  // templates of open models know no developer
      transcript_.say_as_system(text);
  }

  void read_call(const json::object& item, const std::string& where) {
    if (!is_tool_name(item.if_contains("name")))
      return keys_.fault(where + ".name", "is missing or no name", "that of a function");
    const std::string_view call_id = text_at(item, "call_id");
    if (call_id.empty()) return keys_.fault(where + ".call_id", "is missing", "a string");
    const json::value* arguments = item.if_contains("arguments");
    if (!arguments || !arguments->is_string())
      return keys_.fault(where + ".arguments", "is missing", "a string of JSON");
    transcript_.call(call_id, full_name(text_at(item, "namespace"), text_at(item, "name")), arguments->get_string());
  }

  void read_output(const json::object& item, const std::string& where) {
    const std::string_view call_id = text_at(item, "call_id");
    if (call_id.empty()) return keys_.fault(where + ".call_id", "is missing", "a string");
    std::string text;
    if (read_texts(item.if_contains("output"), where + ".output", text)) transcript_.give_result(call_id, text);
  }

  // What another server encrypted is nothing to this one.
  void read_thought(const json::object& item) {
    std::string thought;
    if (const json::value* parts = item.if_contains("content"); parts && parts->is_array())
      for (const json::value& part : parts->get_array())
        if (const json::object* object = part.if_object()) thought += text_at(*object, "text");
    if (const std::string_view hidden = text_at(item, "encrypted_content");
        thought.empty() && hidden.starts_with(kThoughtMark))
      thought = hidden.substr(kThoughtMark.size());
    if (!thought.empty()) transcript_.think(thought);
  }

  JsonKeys& keys_;
  Transcript& transcript_;
};

// The item that a reference names; none: it is not stored here.
std::optional<json::value> find_item(std::string_view id, ResponseStore& store, const std::string& owner) {
  const std::optional<std::string> response_id = response_ids::response_of_item(id);
  const ResponseStore::Stored stored = response_id ? store.find(*response_id, owner) : nullptr;
  if (!stored) return std::nullopt;
  const json::value response = parse_stored(stored->response), input = parse_stored(stored->input_items);
  for (const json::array* items : {&response.at("output").as_array(), &input.as_array()})
    for (const json::value& item : *items)
      if (text_at(item.as_object(), "id") == id) return item;
  return std::nullopt;
}

}  // namespace

ApiResult<json::array> read_input(JsonKeys& keys, const RequestLimits& limits, ResponseStore& store,
                                  const std::string& owner) {
  json::array items;
  const json::value* input = keys.find("input");
  if (input && input->is_string()) {
    items.push_back({{"type", "message"}, {"role", "user"}, {"content", *input}});
  } else if (input && input->is_array()) {
    items = input->get_array();
    if (items.empty() && !keys.find("previous_response_id"))
      keys.fault("input", "holds no item", "a list of at least one");
  } else if (input || !keys.find("previous_response_id")) {
    keys.fault("input", input ? "is something else" : "is missing", "a string or a list of items");
  }
  if (items.size() > static_cast<size_t>(limits.max_messages)) {
    keys.fault("input", fmt::format("holds {} items", items.size()), fmt::format("at most {}", limits.max_messages));
    items.clear();
  }
  for (size_t i = 0; i < items.size(); ++i) {
    const json::object* item = items[i].if_object();
    if (!item || ItemReader::type_of(*item) != "item_reference") continue;
    const std::string_view id = text_at(*item, "id");
    std::optional<json::value> found = find_item(id, store, owner);
    if (!found)
      return std::unexpected(ApiError(404, fmt::format("Item with id {} not found.", quoted(id)),
                                      "invalid_request_error", fmt::format("input[{}].id", i), "item_not_found"));
    items[i] = std::move(*found);
  }
  return items;
}

namespace {

// What was said before, as it stands in the store.
ApiResult<void> read_thread(const ResponsesRequest& request, const RequestLimits& limits, ResponseStore& store,
                            const std::string& owner, JsonKeys& keys, ItemReader& reader) {
  size_t num_items = request.input_items.size();
  const auto read_all = [&](const json::array& items) {
    num_items += items.size();
    if (num_items > static_cast<size_t>(limits.max_messages))
      return keys.fault("previous_response_id", "builds upon too much",
                        fmt::format("a conversation of at most {} items", limits.max_messages));
    for (const json::value& item : items) reader.read(item, "previous_response_id");
  };
  size_t num_bytes = 0;
  for (const ResponseStore::Stored& stored : store.find_thread(request.previous_id, owner)) {
    if (!stored) return not_found(request.previous_id, "previous_response_id");
    num_bytes += stored->num_bytes();
    if (num_bytes > kMostThreadBytes)
      return invalid_request(
          fmt::format("what {} builds upon is longer than {} MiB", quoted(request.previous_id), kMostThreadBytes >> 20),
          "previous_response_id");
    read_all(parse_stored(stored->input_items).as_array());
    read_all(parse_stored(stored->response).at("output").as_array());
    RETURN_IF_ERROR(keys.status());
  }
  return {};
}

}  // namespace

ApiResult<void> read_items(const ResponsesRequest& request, const RequestLimits& limits, ResponseStore& store,
                           const std::string& owner, JsonKeys& keys, Transcript& transcript) {
  ItemReader reader(keys, transcript);
  if (!request.previous_id.empty()) RETURN_IF_ERROR(read_thread(request, limits, store, owner, keys, reader));
  for (size_t i = 0; i < request.input_items.size(); ++i)
    reader.read(request.input_items[i], fmt::format("input[{}]", i));
  return {};
}

std::string shown_input_items(const json::array& items, std::string_view response_id) {
  std::string text;
  JsonPieces list(text, "[]");
  for (size_t i = 0; i < items.size(); ++i) {
    json::object item = items[i].as_object();
    const std::string type(ItemReader::type_of(item));
    const std::string_view prefix = type == "message"         ? "msg"
                                    : type == "reasoning"     ? "rs"
                                    : type == "function_call" ? "fc"
                                                              : "fco";
    item["type"] = type;
    if (text_at(item, "id").empty()) item["id"] = response_ids::of_item(prefix, response_id, i, true);
    if (type == "message") {
      item["status"] = "completed";
      if (const json::value content = item.at("content"); content.is_string()) {
        const bool is_output = item.at("role") == "assistant";
        json::object part = {{"type", is_output ? "output_text" : "input_text"}, {"text", content}};
        if (is_output) part["annotations"] = json::array();
        item["content"] = json::array{std::move(part)};
      }
    }
    append_json(item, list.next());
  }
  list.end();
  return text;
}

}  // namespace cachalot::openai
