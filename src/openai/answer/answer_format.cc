#include "openai/answer/answer_format.h"

#define XXH_INLINE_ALL  // header only
#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <boost/json/array.hpp>
#include <chrono>
#include <span>

#include "base/text.h"
#include "config/json.h"
#include "openai/api_error.h"

namespace cachalot::openai {

namespace json = boost::json;

namespace {

// JSON has no infinity; vLLM writes the logarithm of nothing so.
double finite(float logprob) {
  return std::max(static_cast<double>(logprob), -9999.0);
}

std::string id_text(TokenId token) {
  return fmt::format("token_id:{}", token);
}

// A token's text; one that is not whole characters is written "bytes:\xe4\xbd", as OpenAI does in completions.
std::string completion_text(const LogprobsStyle& style, TokenId token) {
  if (style.tokens_as_ids) return id_text(token);
  const std::string_view bytes = style.tokenizer.token_bytes(token, false);
  std::string text = to_valid_utf8(bytes);
  if (text == bytes) return text;
  text = "bytes:";
  for (const char byte : bytes) text += fmt::format("\\x{:02x}", static_cast<unsigned char>(byte));
  return text;
}

// That begin in these bytes: of a character over several tokens, the first has it.
int num_characters(std::string_view text) {
  return static_cast<int>(
      std::ranges::count_if(text, [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
}

void append_chat_token(const LogprobsStyle& style, TokenId token, float logprob, JsonPieces& object) {
  const std::string_view bytes = style.tokenizer.token_bytes(token, false);
  append_json_string(style.tokens_as_ids ? id_text(token) : to_valid_utf8(bytes), object.next("token"));
  append_json_number(finite(logprob), object.next("logprob"));
  JsonPieces list(object.next("bytes"), "[]");
  for (const char byte : bytes) fmt::format_to(std::back_inserter(list.next()), "{}", static_cast<unsigned char>(byte));
  list.end();
}

std::span<const TokenLogprob> first(const std::vector<TokenLogprob>& top, int count) {
  return std::span(top).first(std::min(top.size(), static_cast<size_t>(count)));
}

// These append JSON, without a tree of values, which would take 10 KB for a token with 20 alternatives.

// Of /v1/completions: four parallel lists. `text_offset` is where the first token's text begins, in characters, and is
// moved on.
void append_completion_logprobs(const LogprobsStyle& style, std::span<const ReportedToken> tokens, int num_top,
                                int& text_offset, std::string& text) {
  std::string texts_text, tops_text, offsets_text;
  JsonPieces texts(texts_text, "[]"), tops(tops_text, "[]"), offsets(offsets_text, "[]");
  JsonPieces lists(text, "{}");
  JsonPieces logprobs(lists.next("token_logprobs"), "[]");
  for (const ReportedToken& reported : tokens) {
    const SampledToken& sampled = reported.sampled;
    const std::string token = completion_text(style, sampled.token);
    append_json_string(token, texts.next());
    fmt::format_to(std::back_inserter(offsets.next()), "{}", text_offset);
    if (reported.is_in_text) text_offset += num_characters(style.tokenizer.token_bytes(sampled.token, false));
    if (!reported.has_logprob) {
      logprobs.next() += "null";
      tops.next() += "null";
      continue;
    }
    append_json_number(finite(sampled.logprob), logprobs.next());
    JsonPieces top(tops.next(), "{}");
    std::vector<std::string> written;
    const auto add = [&](std::string other, float logprob) {
      // Two ids with one text: the likelier one stands.
      if (std::ranges::find(written, other) != written.end()) return;
      append_json_number(finite(logprob), top.next(other));
      written.push_back(std::move(other));
    };
    for (const TokenLogprob& other : first(sampled.top, num_top))
      add(completion_text(style, other.token), other.logprob);
    add(token, sampled.logprob);
    top.end();
  }
  logprobs.end(), texts.end(), tops.end(), offsets.end();
  lists.next("text_offset") += offsets_text;
  lists.next("tokens") += texts_text;
  lists.next("top_logprobs") += tops_text;
  lists.end();
}

// Of /v1/chat/completions: {"content": [...]}.
void append_chat_logprobs(const LogprobsStyle& style, std::span<const ReportedToken> tokens, int num_top,
                          std::string& text) {
  JsonPieces object(text, "{}");
  append_token_logprobs(style, tokens, num_top, object.next("content"));
  object.end();
}

// vLLM's prompt_logprobs: for each token of the prompt null or an object from ids to probabilities.
void append_prompt_logprobs(const LogprobsStyle& style, std::span<const ReportedToken> tokens, std::string& text) {
  JsonPieces list(text, "[]");
  for (const ReportedToken& reported : tokens) {
    if (!reported.has_logprob) {
      list.next() += "null";
      continue;
    }
    const SampledToken& sampled = reported.sampled;
    JsonPieces entry(list.next(), "{}");
    const auto add = [&](TokenId token, float logprob, int rank) {
      JsonPieces object(entry.next(std::to_string(token)), "{}");
      append_json_number(finite(logprob), object.next("logprob"));
      object.add("rank", rank);
      append_json_string(style.tokenizer.token_bytes(token, false), object.next("decoded_token"));
      object.end();
    };
    add(sampled.token, sampled.logprob, sampled.rank);
    for (const TokenLogprob& other : sampled.top)
      if (other.token != sampled.token) add(other.token, other.logprob, other.rank);
    entry.end();
  }
  list.end();
}

json::value finish_word(FinishReason reason, bool has_called = false) {
  if (has_called && reason == FinishReason::kStop) return "tool_calls";
  switch (reason) {
    case FinishReason::kNone:
      break;
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kAborted:
      return "abort";
    case FinishReason::kError:
      return "error";
  }
  return nullptr;
}

// A field of an answer beside its choices, in JSON.
struct Extra {
  std::string_view name;
  std::string value;
};

std::string envelope(const AnswerHead& head, const char* object, std::string_view choices,
                     const std::optional<json::value>& usage, const Extra& extra = {}, const Extra& more = {}) {
  std::string text;
  text.reserve(choices.size() + extra.value.size() + more.value.size() + 512);
  JsonPieces answer(text, "{}");
  answer.add("id", json::value(head.id));
  answer.add("object", object);
  answer.add("created", head.created);
  answer.add("model", json::value(head.model));
  answer.add("system_fingerprint", text_or_null(head.system_fingerprint));
  answer.add("service_tier", text_or_null(head.service_tier));
  answer.next("choices").append("[").append(choices).append("]");
  if (usage) answer.add("usage", *usage);
  for (const Extra* field : {&extra, &more})
    if (!field->name.empty()) answer.next(field->name) += field->value;
  answer.end();
  return text;
}

// What is streamed are chunks, which look like whole answers: data alone, [DONE] at the end.
class ChunkFormat : public AnswerFormat {
 public:
  ChunkFormat(const Tokenizer& tokenizer, AnswerHead head, AnswerOptions options)
      : style_{tokenizer, options.tokens_as_ids}, head_(std::move(head)), options_(options) {}

  std::string whole(std::span<ChoiceText> choices, const Usage& usage) override {
    std::string list;
    for (size_t i = 0; i < choices.size(); ++i) {
      if (i > 0) list += ',';
      append_choice(i, std::exchange(choices[i], {}), false, list);
    }
    return whole_text(list, usage);
  }
  void begin(size_t num_choices, const Usage& usage, std::string& events) override {
    for (size_t i = 0; i < num_choices; ++i)
      if (const std::string choice = opening_choice(i); !choice.empty())
        add_chunk(choice, options_.continuous_usage ? std::optional(usage) : std::nullopt, events);
  }
  void add(size_t index, const ChoiceText& text, const std::optional<Usage>& usage, std::string& events) override {
    std::string choice;
    append_choice(index, text, true, choice);
    add_chunk(choice, usage, events, beside_choice(index, text));
  }
  void progress(const RequestProgress& progress, int num_prompt_tokens, std::string& events) override {
    const json::object told = {{"queue_place", progress.queue_place},
                               {"prompt_tokens_computed", progress.num_computed_tokens},
                               {"prompt_tokens", num_prompt_tokens}};
    add_chunk({}, std::nullopt, events, {.name = "progress", .value = json_text(told)});
  }
  void end(const Usage& usage, std::string& events) override {
    if (options_.include_usage) events += http::format_sse(chunk({}, usage.to_json(), {}));
    events += http::format_sse("[DONE]");
  }

 protected:
  // Objects with these choices, which stand in one text with commas between them.
  virtual std::string whole_text(std::string_view choices, const Usage& usage) const = 0;
  // `usage`: absent: the field, too; null: its value.
  virtual std::string chunk(std::string_view choices, const std::optional<json::value>& usage, Extra extra) const = 0;
  virtual void append_choice(size_t index, const ChoiceText& text, bool is_chunk, std::string& choices) = 0;
  // What a stream begins with for every choice, before there is any text; empty: nothing.
  virtual std::string opening_choice(size_t /*index*/) const { return {}; }
  virtual Extra beside_choice(size_t /*index*/, const ChoiceText& /*text*/) const { return {}; }

  const LogprobsStyle style_;
  const AnswerHead head_;
  const AnswerOptions options_;

 private:
  void add_chunk(std::string_view choice, const std::optional<Usage>& usage, std::string& events,
                 Extra extra = {}) const {
    std::optional<json::value> field;
    if (usage)
      field = usage->to_json();
    else if (options_.include_usage)
      field = json::value();
    events += http::format_sse(chunk(choice, field, std::move(extra)));
  }
};

class CompletionFormat : public ChunkFormat {
 public:
  CompletionFormat(const Tokenizer& tokenizer, AnswerHead head, AnswerOptions options, size_t num_choices)
      : ChunkFormat(tokenizer, std::move(head), options), offsets_(num_choices) {}

 private:
  std::string whole_text(std::string_view choices, const Usage& usage) const override {
    return chunk(choices, usage.to_json(), {});
  }
  std::string chunk(std::string_view choices, const std::optional<json::value>& usage, Extra extra) const override {
    return envelope(head_, "text_completion", choices, usage, extra);
  }

  void append_choice(size_t index, const ChoiceText& text, bool is_chunk, std::string& choices) override {
    JsonPieces choice(choices, "{}");
    choice.add("index", index);
    append_json_string(text.content, choice.next("text"));
    if (options_.num_logprobs < 0)
      choice.add("logprobs", nullptr);
    else
      append_completion_logprobs(style_, text.tokens, options_.num_logprobs, offsets_[index], choice.next("logprobs"));
    choice.add("finish_reason", finish_word(text.finish));
    choice.add("stop_reason", text.stop_reason);
    if (options_.ids && (!is_chunk || !text.prompt_ids.empty()))
      choice.add("prompt_token_ids", json::array(text.prompt_ids.begin(), text.prompt_ids.end()));
    if (options_.ids) choice.add("token_ids", json::array(text.ids.begin(), text.ids.end()));
    if (!is_chunk && options_.prompt_logprobs)
      append_prompt_logprobs(style_, text.prompt_tokens, choice.next("prompt_logprobs"));
    choice.end();
  }

  std::vector<int> offsets_;  // of each choice: where its next token's text begins
};

class ChatFormat : public ChunkFormat {
 public:
  using ChunkFormat::ChunkFormat;

 private:
  // The prompt is all choices' own, so its probabilities stand beside them, as in vLLM, whose field it is.
  std::string whole_text(std::string_view choices, const Usage& usage) const override {
    return envelope(head_, "chat.completion", choices, usage.to_json(), prompt_ids_,
                    {"prompt_logprobs", prompt_logprobs_});
  }
  std::string chunk(std::string_view choices, const std::optional<json::value>& usage, Extra extra) const override {
    return envelope(head_, "chat.completion.chunk", choices, usage, extra);
  }
  // The prompt's ids, too.
  static Extra ids_of_prompt(const ChoiceText& text) {
    return {"prompt_token_ids", json_text(json::array(text.prompt_ids.begin(), text.prompt_ids.end()))};
  }
  Extra beside_choice(size_t index, const ChoiceText& text) const override {
    return index == 0 && !text.prompt_ids.empty() ? ids_of_prompt(text) : Extra();
  }

  void append_choice(size_t index, const ChoiceText& text, bool is_chunk, std::string& choices) override {
    JsonPieces choice(choices, "{}");
    choice.add("index", index);
    JsonPieces message(choice.next(is_chunk ? "delta" : "message"), "{}");
    if (is_chunk) {
      if (!text.reasoning.empty())
        for (const char* name : kReasoningNames) append_json_string(text.reasoning, message.next(name));
      if (!text.content.empty()) append_json_string(text.content, message.next("content"));
      if (!text.calls.empty()) append_calls(index, text.calls, false, message.next("tool_calls"));
    } else {
      message.add("role", "assistant");
      message.add("content", text.content.empty() && text.has_called ? json::value() : json::value(text.content));
      message.add("refusal", nullptr);
      if (options_.reasoning)
        for (const char* name : kReasoningNames) message.add(name, text_or_null(text.reasoning));
      if (!text.calls.empty()) append_calls(index, text.calls, true, message.next("tool_calls"));
    }
    message.end();
    if (options_.num_logprobs < 0)
      choice.add("logprobs", nullptr);
    else
      append_chat_logprobs(style_, text.tokens, options_.num_logprobs, choice.next("logprobs"));
    choice.add("finish_reason", finish_word(text.finish, text.has_called && !options_.named_call));
    if (text.finish != FinishReason::kNone) choice.add("stop_reason", text.stop_reason);
    if (options_.ids) choice.add("token_ids", json::array(text.ids.begin(), text.ids.end()));
    choice.end();
    if (is_chunk || index > 0) return;
    if (options_.ids && options_.prompt_ids) prompt_ids_ = ids_of_prompt(text);
    if (!options_.prompt_logprobs) return;
    prompt_logprobs_.clear();
    append_prompt_logprobs(style_, text.prompt_tokens, prompt_logprobs_);
  }

  std::string opening_choice(size_t index) const override {
    return json_text({{"index", index},
                      {"delta", {{"role", "assistant"}, {"content", ""}}},
                      {"logprobs", nullptr},
                      {"finish_reason", nullptr}});
  }

  // vLLM's newer name and the older one, which DeepSeek's own API uses.
  static constexpr const char* kReasoningNames[] = {"reasoning", "reasoning_content"};

  // Whole, or what is new of them: name and id come once.
  void append_calls(size_t choice, std::span<const ToolCallPiece> calls, bool is_whole, std::string& text) const {
    JsonPieces list(text, "[]");
    for (const ToolCallPiece& call : calls) {
      JsonPieces object(list.next(), "{}");
      if (!is_whole) object.add("index", call.index);
      if (!call.name.empty()) {
        object.add("id", json::value(call.id.empty() ? "call_" + made_call_id(head_, choice, call.index) : call.id));
        object.add("type", "function");
      }
      JsonPieces function(object.next("function"), "{}");
      if (!call.name.empty()) append_json_string(call.name, function.next("name"));
      append_json_string(call.arguments, function.next("arguments"));
      function.end();
      object.end();
    }
    list.end();
  }

  Extra prompt_ids_;
  std::string prompt_logprobs_ = "null";
};

}  // namespace

json::object Usage::to_json() const {
  return {{"prompt_tokens", prompt_tokens},
          {"completion_tokens", completion_tokens},
          {"total_tokens", prompt_tokens + completion_tokens},
          {"prompt_tokens_details", {{"cached_tokens", cached_tokens}}},
          {"completion_tokens_details", {{"reasoning_tokens", reasoning_tokens}}}};
}

int64_t unix_seconds() {
  return std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
}

std::string made_call_id(const AnswerHead& head, size_t choice, size_t call) {
  const std::string place = fmt::format("{} {} {} {}", head.id, head.created, choice, call);
  const XXH128_hash_t hash = XXH3_128bits(place.data(), place.size());
  return fmt::format("{:016x}{:08x}", hash.low64, hash.high64 >> 32);
}

void append_token_logprobs(const LogprobsStyle& style, std::span<const ReportedToken> tokens, int num_top,
                           std::string& text) {
  JsonPieces content(text, "[]");
  for (const ReportedToken& reported : tokens) {
    const SampledToken& sampled = reported.sampled;
    JsonPieces token(content.next(), "{}");
    append_chat_token(style, sampled.token, sampled.logprob, token);
    JsonPieces list(token.next("top_logprobs"), "[]");
    for (const TokenLogprob& other : first(sampled.top, num_top)) {
      JsonPieces alternative(list.next(), "{}");
      append_chat_token(style, other.token, other.logprob, alternative);
      alternative.end();
    }
    list.end();
    token.end();
  }
  content.end();
}

std::unique_ptr<AnswerFormat> make_completion_format(const Tokenizer& tokenizer, AnswerHead head, AnswerOptions options,
                                                     size_t num_choices) {
  return std::make_unique<CompletionFormat>(tokenizer, std::move(head), options, num_choices);
}

std::unique_ptr<AnswerFormat> make_chat_format(const Tokenizer& tokenizer, AnswerHead head, AnswerOptions options) {
  return std::make_unique<ChatFormat>(tokenizer, std::move(head), options);
}

}  // namespace cachalot::openai
