#include "openai/request/prompt_maker.h"

#include <algorithm>

#include "base/log.h"
#include "config/json.h"

namespace cachalot::openai {
namespace {

// What a library says of its own faults (a place in its sources) is for the log. The same text would fail on any other
// replica, too, and this one is none the worse: so it is the request's fault.
std::unexpected<ApiError> library_failed(const char* what, const std::string& message, size_t num_bytes,
                                         const char* parameter) {
  log::error("the {} failed on a text of {} bytes: {}", what, num_bytes, message);
  return invalid_request(fmt::format("the {} cannot take this text of {} bytes", what, num_bytes), parameter,
                         "unprocessable_text");
}

}  // namespace

PromptMaker::PromptMaker(const Tokenizer& tokenizer, const ChatTemplate* chat_template, int max_model_len,
                         boost::json::object template_defaults, bool takes_marks)
    : tokenizer_(tokenizer),
      chat_template_(chat_template),
      max_model_len_(max_model_len),
      template_defaults_(std::move(template_defaults)),
      bounds_(tokenizer) {
  if (!takes_marks) guard_.emplace(tokenizer);
}

std::unexpected<ApiError> PromptMaker::too_long(const std::string& asked, const char* parameter) const {
  return invalid_request(
      fmt::format("This model's maximum context length is {} tokens, but {}. Shorten the prompt or ask for fewer.",
                  max_model_len_, asked),
      parameter, "context_length_exceeded");
}

ApiResult<std::vector<TokenId>> PromptMaker::tokenize(std::string_view text, bool add_special_tokens,
                                                      const char* parameter, bool may_be_cut,
                                                      std::span<const size_t> guards) const {
  // What is to be cut must be tokenized whole; so much of it and no more.
  constexpr int64_t kPatience = 8;
  const int64_t least = bounds_.least_num_tokens(text);
  const int64_t limit = max_model_len_ * (may_be_cut ? kPatience : 1);
  if (least > limit)
    return too_long(fmt::format("the text has {} tokens at least{}", least,
                                may_be_cut ? fmt::format(" (at most {} are cut to what fits)", limit) : ""),
                    parameter);
  auto tokens = bounds_.encode(text, add_special_tokens, guards);
  if (tokens) return std::move(*tokens);
  if (tokens.error().code == ErrorCode::kInternal)
    return library_failed("tokenizer", tokens.error().message, text.size(), parameter);
  return std::unexpected(ApiError(tokens.error()));
}

ApiResult<RenderedChat> PromptMaker::render_chat(const Conversation& conversation) const {
  if (!chat_template_ && conversation.chat_template.empty())
    return invalid_request(fmt::format("{}: this model has no chat template; use /v1/completions", kRequest),
                           "messages");
  const ChatTemplate* chat_template = chat_template_;
  std::unique_ptr<ChatTemplate> own;
  if (!conversation.chat_template.empty()) {
    auto compiled =
        ChatTemplate::from_source(conversation.chat_template, tokenizer_.bos_token(), tokenizer_.eos_token());
    if (!compiled) return invalid_request("chat_template: " + compiled.error().message, "chat_template");
    own = std::move(*compiled);
    chat_template = own.get();
  }
  auto rendered = render(conversation, *chat_template, template_defaults_, guard_ ? &*guard_ : nullptr);
  if (rendered) return std::move(*rendered);
  Error& error = rendered.error();
  if (error.code == ErrorCode::kInternal)
    return library_failed("chat template", error.message, json_text(conversation.messages).size(), "messages");
  if (error.parameter.empty()) error.parameter = "messages";
  return std::unexpected(ApiError(error));
}

ApiResult<std::vector<TokenId>> PromptMaker::tokenize(const Conversation& conversation) const {
  ASSIGN_OR_RETURN(const RenderedChat chat, render_chat(conversation));
  return tokenize(chat.text, conversation.add_special_tokens, "messages", false, chat.guards);
}

ApiResult<Prompt> PromptMaker::from_text(std::string text, bool add_special_tokens, bool echo, const Fit& fit) const {
  Prompt prompt;
  ASSIGN_OR_RETURN(prompt.tokens, tokenize(text, add_special_tokens, "prompt", fit.truncate.has_value()));
  const std::string& bos = tokenizer_.bos_token();
  prompt.first_is_added = !prompt.tokens.empty() && !bos.empty() && !text.starts_with(bos) &&
                          tokenizer_.token_bytes(prompt.tokens.front(), false) == bos;
  ASSIGN_OR_RETURN(const bool was_cut, fit_in(fit, "prompt", prompt));
  if (!echo) return prompt;
  if (was_cut) {
    const size_t first = prompt.first_is_added ? 1 : 0;
    text = tokenizer_.decode(std::span(prompt.tokens).subspan(first), false);
  }
  prompt.text = std::move(text);
  return prompt;
}

ApiResult<Prompt> PromptMaker::from_ids(std::vector<TokenId> ids, bool echo, bool skip_special, const Fit& fit) const {
  Prompt prompt{.tokens = std::move(ids), .skips_special = skip_special};
  RETURN_IF_ERROR(fit_in(fit, "prompt", prompt));
  if (echo) prompt.text = tokenizer_.decode(prompt.tokens, skip_special);
  return prompt;
}

ApiResult<Prompt> PromptMaker::from_chat(const Conversation& conversation, const Fit& fit) const {
  ASSIGN_OR_RETURN(const RenderedChat chat, render_chat(conversation));
  Prompt prompt{.opens_thought = chat.opens_thought};
  ASSIGN_OR_RETURN(prompt.tokens, tokenize(chat.text, conversation.add_special_tokens, "messages",
                                           fit.truncate.has_value(), chat.guards));
  RETURN_IF_ERROR(fit_in(fit, "messages", prompt));
  return prompt;
}

ApiResult<bool> PromptMaker::fit_in(const Fit& fit, const char* parameter, Prompt& prompt) const {
  bool was_cut = false;
  std::vector<TokenId>& tokens = prompt.tokens;
  if (fit.truncate) {
    const int room = max_model_len_ - std::clamp(fit.max_tokens.value_or(fit.reserve), 1, max_model_len_ - 1);
    const auto limit = static_cast<size_t>(*fit.truncate < 0 ? room : *fit.truncate);
    was_cut = tokens.size() > limit;
    if (was_cut && fit.truncates_end) {
      tokens.resize(limit);
    } else if (was_cut) {
      tokens.erase(tokens.begin(), tokens.end() - static_cast<int64_t>(limit));
      prompt.first_is_added = false;
    }
  }
  if (tokens.empty()) return invalid_request("the prompt holds no token; there must be at least one", parameter);
  const auto num_tokens = static_cast<int64_t>(tokens.size());
  const auto room = max_model_len_ - static_cast<int>(std::min<int64_t>(num_tokens, max_model_len_));
  if (room < 1)
    return too_long(fmt::format("the prompt has {} tokens and the answer needs at least one", num_tokens), parameter);
  if (fit.max_tokens.value_or(0) > room)
    return too_long(fmt::format("{} tokens were requested ({} in the prompt, {} in the answer)",
                                num_tokens + *fit.max_tokens, num_tokens, *fit.max_tokens),
                    parameter);
  prompt.max_tokens =
      fit.prompt_only ? 1 : fit.max_tokens.value_or(std::min(room, fit.default_max_tokens.value_or(room)));
  return was_cut;
}

}  // namespace cachalot::openai
