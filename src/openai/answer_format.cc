#include "openai/answer_format.h"

#include <boost/json/array.hpp>

namespace cachalot::openai {

namespace json = boost::json;

namespace {

json::value finish_word(FinishReason reason) {
  switch (reason) {
    case FinishReason::kNone:
      return nullptr;
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

json::value word_or_null(const std::string& text) {
  return text.empty() ? json::value() : json::value(text);
}

json::object envelope(const AnswerHead& head, const char* object, json::array choices) {
  return {{"id", head.id},
          {"object", object},
          {"created", head.created},
          {"model", head.model},
          {"system_fingerprint", word_or_null(head.system_fingerprint)},
          {"service_tier", word_or_null(head.service_tier)},
          {"choices", std::move(choices)}};
}

class CompletionFormat : public AnswerFormat {
 public:
  CompletionFormat(const Tokenizer& tokenizer, AnswerHead head, AnswerOptions options, size_t num_choices)
      : style_{tokenizer, options.tokens_as_ids}, head_(std::move(head)), options_(options), offsets_(num_choices) {}

  json::object whole(json::array choices) const override {
    return envelope(head_, "text_completion", std::move(choices));
  }
  json::object chunk(json::array choices) const override { return whole(std::move(choices)); }

  json::object whole_choice(size_t index, const ChoiceText& text) override {
    json::object choice = chunk_choice(index, text);
    if (options_.prompt_logprobs) choice["prompt_logprobs"] = prompt_logprobs(style_, text.prompt_tokens);
    return choice;
  }

  json::object chunk_choice(size_t index, const ChoiceText& text) override {
    json::value logprobs;
    if (options_.num_logprobs >= 0)
      logprobs = completion_logprobs(style_, text.tokens, options_.num_logprobs, offsets_[index]);
    return {{"index", index},
            {"text", text.content},
            {"logprobs", std::move(logprobs)},
            {"finish_reason", finish_word(text.finish)},
            {"stop_reason", text.stop_reason}};
  }

  bool has_opening() const override { return false; }
  json::object opening_choice(size_t) const override { return {}; }

 private:
  const LogprobsStyle style_;
  const AnswerHead head_;
  const AnswerOptions options_;
  std::vector<int> offsets_;  // of each choice: where its next token's text begins
};

class ChatFormat : public AnswerFormat {
 public:
  ChatFormat(const Tokenizer& tokenizer, AnswerHead head, AnswerOptions options)
      : style_{tokenizer, options.tokens_as_ids}, head_(std::move(head)), options_(options) {}

  // The prompt is all choices' own, so its probabilities stand beside them, as in vLLM, whose field it is.
  json::object whole(json::array choices) const override {
    json::object answer = envelope(head_, "chat.completion", std::move(choices));
    answer["prompt_logprobs"] = prompt_logprobs_;
    return answer;
  }
  json::object chunk(json::array choices) const override {
    return envelope(head_, "chat.completion.chunk", std::move(choices));
  }

  json::object whole_choice(size_t index, const ChoiceText& text) override {
    json::object message = {{"role", "assistant"}, {"content", text.content}, {"refusal", nullptr}};
    if (options_.reasoning)
      put_reasoning(message, text.reasoning.empty() ? json::value() : json::value(text.reasoning));
    message["tool_calls"] = json::array();
    json::object choice = {{"index", index}, {"message", std::move(message)}, {"logprobs", logprobs(text)}};
    put_finish(choice, text);
    if (options_.prompt_logprobs && index == 0) prompt_logprobs_ = prompt_logprobs(style_, text.prompt_tokens);
    return choice;
  }

  json::object chunk_choice(size_t index, const ChoiceText& text) override {
    json::object delta;
    if (!text.reasoning.empty()) put_reasoning(delta, json::value(text.reasoning));
    if (!text.content.empty()) delta["content"] = text.content;
    json::object choice = {{"index", index}, {"delta", std::move(delta)}, {"logprobs", logprobs(text)}};
    put_finish(choice, text);
    return choice;
  }

  bool has_opening() const override { return true; }
  json::object opening_choice(size_t index) const override {
    return {{"index", index},
            {"delta", {{"role", "assistant"}, {"content", ""}}},
            {"logprobs", nullptr},
            {"finish_reason", nullptr}};
  }

 private:
  // Under vLLM's newer name and the older one, which DeepSeek's own API uses.
  static void put_reasoning(json::object& message, const json::value& reasoning) {
    message["reasoning"] = reasoning;
    message["reasoning_content"] = reasoning;
  }
  static void put_finish(json::object& choice, const ChoiceText& text) {
    choice["finish_reason"] = finish_word(text.finish);
    if (text.finish != FinishReason::kNone) choice["stop_reason"] = text.stop_reason;
  }
  json::value logprobs(const ChoiceText& text) const {
    if (options_.num_logprobs < 0) return nullptr;
    return chat_logprobs(style_, text.tokens, options_.num_logprobs);
  }

  const LogprobsStyle style_;
  const AnswerHead head_;
  const AnswerOptions options_;
  json::value prompt_logprobs_;  // null until the first choice is written, and where nobody asked
};

}  // namespace

json::object Usage::to_json() const {
  return {{"prompt_tokens", prompt_tokens},
          {"completion_tokens", completion_tokens},
          {"total_tokens", prompt_tokens + completion_tokens},
          {"prompt_tokens_details", {{"cached_tokens", cached_tokens}}},
          {"completion_tokens_details", {{"reasoning_tokens", reasoning_tokens}}}};
}

std::unique_ptr<AnswerFormat> make_completion_format(const Tokenizer& tokenizer, AnswerHead head, AnswerOptions options,
                                                     size_t num_choices) {
  return std::make_unique<CompletionFormat>(tokenizer, std::move(head), options, num_choices);
}

std::unique_ptr<AnswerFormat> make_chat_format(const Tokenizer& tokenizer, AnswerHead head, AnswerOptions options) {
  return std::make_unique<ChatFormat>(tokenizer, std::move(head), options);
}

}  // namespace cachalot::openai
