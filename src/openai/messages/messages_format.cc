#define XXH_INLINE_ALL  // header only
#include <fmt/format.h>
#include <xxhash.h>

#include <boost/json/parse.hpp>
#include <utility>

#include "config/json.h"
#include "http/message.h"
#include "openai/answer/block_format.h"
#include "openai/messages/messages_request.h"

namespace cachalot::openai {

namespace json = boost::json;

namespace {

using Kind = Block::Kind;

// Clients send a thought back with what signs it. There is nothing to forge here: it says which thought it was.
std::string signature_of(std::string_view thought) {
  const XXH128_hash_t hash = XXH3_128bits(thought.data(), thought.size());
  return fmt::format("{:016x}{:016x}", hash.high64, hash.low64);
}

// Of a call's arguments; what the model wrote that is no JSON stands under the name that Anthropic gives it.
json::value input_of(const std::string& arguments) {
  boost::system::error_code error;
  json::value input = json::parse(arguments, error, {}, {.max_depth = 64});
  if (!error && input.is_object()) return input;
  if (arguments.empty()) return json::object();
  return json::object{{"INVALID_JSON", arguments}};
}

json::object usage_of(const Usage& usage) {
  return {{"input_tokens", usage.prompt_tokens - usage.cached_tokens},
          {"cache_creation_input_tokens", 0},
          {"cache_read_input_tokens", usage.cached_tokens},
          {"output_tokens", usage.completion_tokens},
          {"output_tokens_details", {{"thinking_tokens", usage.reasoning_tokens}}},
          {"service_tier", "standard"}};
}

class MessagesFormat : public BlockFormat {
 public:
  explicit MessagesFormat(MessagesAnswer answer) : answer_(std::move(answer)) {}

  http::Response refusal(const ApiError& error, const http::Headers& headers) const override {
    return error.to_response(headers, ErrorForm::kAnthropic);
  }
  std::string_view keep_alive() const override { return "event: ping\ndata: {\"type\":\"ping\"}\n\n"; }

 private:
  void write_begin(const Usage& usage) override {
    write_event("message_start",
                [&](JsonPieces& event) { append_message(nullptr, nullptr, usage, event.next("message")); });
  }

  void write_block_begin(const Block& block) override {
    if (!events()) return;
    write_event("content_block_start", [&](JsonPieces& event) {
      event.add("index", block.index);
      append_block(block, true, event.next("content_block"));
    });
  }

  void write_piece(const Block& block, std::string_view piece, std::span<const ReportedToken> /*tokens*/) override {
    if (!events()) return;
    constexpr std::pair<const char*, const char*> kDeltas[] = {
        {"thinking_delta", "thinking"}, {"text_delta", "text"}, {"input_json_delta", "partial_json"}};  // by kind
    const auto& [type, name] = kDeltas[static_cast<size_t>(block.kind)];
    write_delta(block, type, name, piece);
  }

  void write_block_end(const Block& block, bool /*is_cut*/) override {
    if (events()) {
      if (block.kind == Kind::kThought) write_delta(block, "signature_delta", "signature", signature_of(block.text));
      return write_event("content_block_stop", [&](JsonPieces& event) { event.add("index", block.index); });
    }
    if (!content_.empty()) content_ += ',';
    append_block(block, false, content_);
  }

  void write_end(const Usage& usage) override {
    write_event("message_delta", [&](JsonPieces& event) {
      event.add("delta", {{"stop_reason", stop_word(usage)}, {"stop_sequence", stop_sequence()}});
      event.add("usage", usage_of(usage));
    });
    write_event("message_stop", [](JsonPieces&) {});
  }

  void write_failure(const ApiError& error) override {
    *events() += error.to_event(ErrorForm::kAnthropic, answer_.request_id);
  }

  std::string whole_answer(const Usage& usage) override {
    std::string text;
    append_message(stop_word(usage), stop_sequence(), usage, text);
    return text;
  }

  bool wants_some_text() const override { return false; }

  const char* stop_word(const Usage& usage) const {
    if (finish() == FinishReason::kLength)
      return usage.completion_tokens < answer_.max_tokens ? "model_context_window_exceeded" : "max_tokens";
    if (stop_reason().is_string()) return "stop_sequence";
    return has_called() ? "tool_use" : "end_turn";
  }
  json::value stop_sequence() const {
    return finish() == FinishReason::kStop && stop_reason().is_string() ? stop_reason() : json::value();
  }

  template <class Fill>
  void write_event(const char* type, Fill fill) {
    std::string data;
    JsonPieces event(data, "{}");
    event.add("type", type);
    fill(event);
    event.end();
    *events() += http::format_sse(data, type);
  }

  void write_delta(const Block& block, const char* type, const char* name, std::string_view piece) {
    write_event("content_block_delta", [&](JsonPieces& event) {
      event.add("index", block.index);
      JsonPieces delta(event.next("delta"), "{}");
      delta.add("type", type);
      append_json_string(piece, delta.next(name));
      delta.end();
    });
  }

  void append_message(const json::value& stop_reason, const json::value& stop_sequence, const Usage& usage,
                      std::string& text) const {
    JsonPieces message(text, "{}");
    message.add("id", json::value(answer_.head.id));
    message.add("type", "message");
    message.add("role", "assistant");
    message.add("model", json::value(answer_.head.model));
    message.next("content").append("[").append(content_).append("]");
    message.add("stop_reason", stop_reason);
    message.add("stop_sequence", stop_sequence);
    message.add("usage", usage_of(usage));
    message.end();
  }

  // `is_new`: nothing of it is there yet.
  void append_block(const Block& block, bool is_new, std::string& text) const {
    const std::string_view content = is_new ? std::string_view() : std::string_view(block.text);
    JsonPieces object(text, "{}");
    switch (block.kind) {
      case Kind::kThought:
        object.add("type", "thinking");
        append_json_string(content, object.next("thinking"));
        object.add("signature", json::value(is_new ? "" : signature_of(block.text)));
        break;
      case Kind::kText:
        object.add("type", "text");
        append_json_string(content, object.next("text"));
        break;
      case Kind::kCall:
        object.add("type", "tool_use");
        object.add("id", json::value(block.call_id.empty() ? "toolu_" + made_call_id(answer_.head, 0, block.call)
                                                           : block.call_id));
        append_json_string(block.name, object.next("name"));
        object.add("input", is_new ? json::value(json::object()) : input_of(block.text));
        break;
    }
    object.end();
  }

  const MessagesAnswer answer_;
  std::string content_;  // blocks of a whole answer
};

}  // namespace

std::unique_ptr<AnswerFormat> make_messages_format(MessagesAnswer answer) {
  return std::make_unique<MessagesFormat>(std::move(answer));
}

}  // namespace cachalot::openai
