#include "openai/responses/responses_format.h"

#include <fmt/format.h>

#include <utility>

#include "config/json.h"
#include "http/message.h"
#include "openai/answer/block_format.h"
#include "openai/responses/response_store.h"

namespace cachalot::openai {

namespace json = boost::json;

namespace {

using Kind = Block::Kind;

json::object usage_object(const Usage& usage) {
  return {{"input_tokens", usage.prompt_tokens},
          {"input_tokens_details", {{"cached_tokens", usage.cached_tokens}, {"cache_write_tokens", 0}}},
          {"output_tokens", usage.completion_tokens},
          {"output_tokens_details", {{"reasoning_tokens", usage.reasoning_tokens}}},
          {"total_tokens", usage.prompt_tokens + usage.completion_tokens}};
}

class ResponsesFormat : public BlockFormat {
 public:
  ResponsesFormat(const Tokenizer& tokenizer, ResponsesAnswer answer)
      : style_{tokenizer, answer.tokens_as_ids}, answer_(std::move(answer)) {}

 private:
  void write_begin(const Usage& /*usage*/) override {
    for (const char* type : {"response.created", "response.in_progress"})
      write_response_event(type, "in_progress", nullptr, nullptr);
  }

  void write_block_begin(const Block& block) override {
    if (!events()) return;
    write_event("response.output_item.added", [&](JsonPieces& event) {
      event.add("output_index", block.index);
      append_item(block, "in_progress", true, event.next("item"));
    });
    if (block.kind == Kind::kCall) return;
    write_event("response.content_part.added", [&](JsonPieces& event) {
      add_place(block, event);
      append_part(block, {}, {}, event.next("part"));
    });
  }

  void write_piece(const Block& block, std::string_view piece, std::span<const ReportedToken> tokens) override {
    if (!events()) return;
    write_event(block.kind == Kind::kThought ? "response.reasoning_text.delta"
                : block.kind == Kind::kText  ? "response.output_text.delta"
                                             : "response.function_call_arguments.delta",
                [&](JsonPieces& event) {
                  add_place(block, event);
                  append_json_string(piece, event.next("delta"));
                  if (block.kind == Kind::kText) append_logprobs(tokens, event.next("logprobs"));
                });
  }

  void write_block_end(const Block& block, bool is_cut) override {
    const char* status = is_cut ? "incomplete" : "completed";
    if (events()) write_done_events(block, status);
    if (!items_.empty()) items_ += ',';
    append_item(block, status, false, items_);
  }

  void write_done_events(const Block& block, const char* status) {
    if (block.kind == Kind::kCall) {
      write_event("response.function_call_arguments.done", [&](JsonPieces& event) {
        add_place(block, event);
        append_name(block.name, event);
        append_json_string(block.text, event.next("arguments"));
      });
    } else {
      const bool is_text = block.kind == Kind::kText;
      write_event(is_text ? "response.output_text.done" : "response.reasoning_text.done", [&](JsonPieces& event) {
        add_place(block, event);
        append_json_string(block.text, event.next("text"));
        if (is_text) append_logprobs(block.tokens, event.next("logprobs"));
      });
      write_event("response.content_part.done", [&](JsonPieces& event) {
        add_place(block, event);
        append_part(block, block.text, block.tokens, event.next("part"));
      });
    }
    write_event("response.output_item.done", [&](JsonPieces& event) {
      event.add("output_index", block.index);
      append_item(block, status, false, event.next("item"));
    });
  }

  void write_end(const Usage& usage) override {
    const char* status = end_status();
    const json::value used = usage_object(usage);
    keep(status, used);
    write_response_event(finish() == FinishReason::kLength ? "response.incomplete" : "response.completed", status, used,
                         nullptr);
  }

  void write_failure(const ApiError& error) override {
    // Of OpenAI's codes; clients send an invalid prompt no second time.
    const char* code = error.is_final ? "invalid_prompt" : error.status == 429 ? "rate_limit_exceeded" : "server_error";
    write_response_event("response.failed", "failed", nullptr, {{"code", code}, {"message", error.message}});
  }

  std::string whole_answer(const Usage& usage) override {
    const char* status = end_status();
    const json::value used = usage_object(usage);
    keep(status, used);
    return response_text(status, used, nullptr);
  }

  bool wants_some_text() const override { return true; }

  const char* end_status() {
    if (finish() == FinishReason::kLength) return "incomplete";
    completed_at_ = unix_seconds();
    return "completed";
  }

  void keep(const char* status, const json::value& usage) const {
    if (answer_.keep) answer_.keep(response_text(status, usage, nullptr));
  }

  // The event's fields behind its type and number are written by `fill`.
  template <class Fill>
  void write_event(const char* type, Fill fill) {
    std::string data;
    JsonPieces event(data, "{}");
    event.add("type", type);
    event.add("sequence_number", num_events_++);
    fill(event);
    event.end();
    *events() += http::format_sse(data, type);
  }

  void write_response_event(const char* type, const char* status, const json::value& usage, const json::value& error) {
    write_event(type, [&](JsonPieces& event) { event.next("response") += response_text(status, usage, error); });
  }

  std::string response_text(const char* status, const json::value& usage, const json::value& error) const {
    const bool is_incomplete = std::string_view(status) == "incomplete";
    std::string text;
    JsonPieces response(text, "{}");
    response.add("id", json::value(answer_.head.id));
    response.add("object", "response");
    response.add("created_at", answer_.head.created);
    response.add("completed_at", completed_at_ > 0 ? json::value(completed_at_) : json::value());
    response.add("status", status);
    response.add("error", error);
    response.add("incomplete_details",
                 is_incomplete ? json::value(json::object{{"reason", "max_output_tokens"}}) : json::value());
    response.add("model", json::value(answer_.head.model));
    response.next("output").append("[").append(items_).append("]");
    for (const auto& [key, value] : answer_.echo) response.add(key, value);
    response.add("usage", usage);
    response.end();
    return text;
  }

  std::string item_id(const Block& block) const {
    constexpr const char* kPrefixes[] = {"rs", "msg", "fc"};  // by kind
    return response_ids::of_item(kPrefixes[static_cast<size_t>(block.kind)], answer_.head.id, block.index);
  }

  void add_place(const Block& block, JsonPieces& event) const {
    event.add("item_id", json::value(item_id(block)));
    event.add("output_index", block.index);
    if (block.kind != Kind::kCall) event.add("content_index", 0);
  }

  // `is_new`: nothing of it is there yet.
  void append_item(const Block& block, const char* status, bool is_new, std::string& text) const {
    JsonPieces item(text, "{}");
    item.add("id", json::value(item_id(block)));
    switch (block.kind) {
      case Kind::kThought:
        item.add("type", "reasoning");
        item.add("summary", json::array());
        append_content(block, is_new, item.next("content"));
        item.add("encrypted_content", answer_.returns_thoughts && !is_new
                                          ? json::value(std::string(kThoughtMark) + block.text)
                                          : json::value());
        break;
      case Kind::kText:
        item.add("type", "message");
        item.add("role", "assistant");
        append_content(block, is_new, item.next("content"));
        break;
      case Kind::kCall:
        item.add("type", "function_call");
        item.add("call_id", json::value(block.call_id.empty() ? "call_" + made_call_id(answer_.head, 0, block.call)
                                                              : block.call_id));
        append_name(block.name, item);
        append_json_string(is_new ? std::string_view() : std::string_view(block.text), item.next("arguments"));
        break;
    }
    item.add("status", status);
    item.end();
  }

  // As the request knows the tool.
  void append_name(std::string_view name, JsonPieces& object) const {
    const auto found = answer_.namespaced_tools.find(name);
    const bool is_namespaced = found != answer_.namespaced_tools.end();
    append_json_string(is_namespaced ? std::string_view(found->second.second) : name, object.next("name"));
    if (is_namespaced) append_json_string(found->second.first, object.next("namespace"));
  }

  void append_content(const Block& block, bool is_new, std::string& text) const {
    JsonPieces list(text, "[]");
    if (!is_new) append_part(block, block.text, block.tokens, list.next());
    list.end();
  }

  void append_part(const Block& block, std::string_view content, std::span<const ReportedToken> tokens,
                   std::string& text) const {
    const bool is_text = block.kind == Kind::kText;
    JsonPieces part(text, "{}");
    part.add("type", is_text ? "output_text" : "reasoning_text");
    append_json_string(content, part.next("text"));
    if (is_text) {
      part.add("annotations", json::array());
      append_logprobs(tokens, part.next("logprobs"));
    }
    part.end();
  }

  void append_logprobs(std::span<const ReportedToken> tokens, std::string& text) const {
    append_token_logprobs(style_, answer_.num_logprobs < 0 ? std::span<const ReportedToken>() : tokens,
                          answer_.num_logprobs, text);
  }

  const LogprobsStyle style_;
  const ResponsesAnswer answer_;
  std::string items_;         // that are complete
  int64_t completed_at_ = 0;  // 0: it is not, or not as a whole
  uint64_t num_events_ = 0;
};

}  // namespace

std::unique_ptr<AnswerFormat> make_responses_format(const Tokenizer& tokenizer, ResponsesAnswer answer) {
  return std::make_unique<ResponsesFormat>(tokenizer, std::move(answer));
}

}  // namespace cachalot::openai
