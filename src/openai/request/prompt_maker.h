#pragma once

#include <optional>
#include <string>
#include <vector>

#include "openai/answer/choice.h"
#include "openai/api_error.h"
#include "openai/request/chat_request.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace cachalot::openai {

// Texts, ids and conversations to prompts that fit into the model's context. What cannot fit is refused before it is
// tokenized; a fault of the tokenizer or the template is the request's own. Thread-safe.
class PromptMaker {
 public:
  // Borrows both; `chat_template` may be null. `template_defaults`: what it is given where a request says nothing.
  // `takes_marks`: marks in what conversations say are no text, but what the tokenizer takes them for.
  PromptMaker(const Tokenizer& tokenizer, const ChatTemplate* chat_template, int max_model_len,
              boost::json::object template_defaults = {}, bool takes_marks = false);
  void set_max_model_len(int max_model_len) { max_model_len_ = max_model_len; }  // before the first prompt

  struct Fit {
    std::optional<int> max_tokens, default_max_tokens;  // of the answer; neither: what is left
    std::optional<int> truncate;                        // truncate_prompt_tokens; -1: to what fits ...
    int reserve = 1;                                    // ... beside max_tokens or, if there are none, so many
    bool truncates_end = false;                         // keeps the prompt's beginning
    bool prompt_only = false;
  };
  // `echo`: the prompt's text will be asked for.
  ApiResult<Prompt> from_text(std::string text, bool add_special_tokens, bool echo, const Fit& fit) const;
  ApiResult<Prompt> from_ids(std::vector<TokenId> ids, bool echo, bool skip_special, const Fit& fit) const;
  ApiResult<Prompt> from_chat(const Conversation& conversation, const Fit& fit) const;

  // Without regard to an answer, for /tokenize.
  ApiResult<std::vector<TokenId>> tokenize(std::string_view text, bool add_special_tokens,
                                           const char* parameter = "prompt", bool may_be_cut = false,
                                           std::span<const size_t> guards = {}) const;
  ApiResult<std::vector<TokenId>> tokenize(const Conversation& conversation) const;

 private:
  ApiResult<RenderedChat> render_chat(const Conversation& conversation) const;
  // True if the prompt was cut.
  ApiResult<bool> fit_in(const Fit& fit, const char* parameter, Prompt& prompt) const;
  std::unexpected<ApiError> too_long(const std::string& asked, const char* parameter) const;

  const Tokenizer& tokenizer_;
  const ChatTemplate* chat_template_;
  int max_model_len_;
  const boost::json::object template_defaults_;
  const TextBounds bounds_;
  std::optional<MarkGuard> guard_;
};

}  // namespace cachalot::openai
