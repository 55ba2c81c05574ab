#pragma once

#include <boost/json/value.hpp>
#include <optional>
#include <string>
#include <vector>

#include "core/generation.h"
#include "text/answer_text.h"
#include "text/tool_call_parser.h"

namespace cachalot::openai {

struct Prompt {
  std::vector<TokenId> tokens;
  std::string text;             // if it is to be echoed
  bool first_is_added = false;  // a begin-of-sequence token that the text does not hold
  bool skips_special = false;   // the text holds no special tokens
  bool opens_thought = false;
  int max_tokens = 0;
};

// A token whose probability is reported; the first of a prompt has none.
struct ReportedToken {
  SampledToken sampled;
  bool has_logprob = true;
  bool is_in_text = true;      // false: an added or skipped special token
  bool is_in_thought = false;  // or of its tags
};

// What is new of one choice, or all of it so far.
struct ChoiceText {
  std::string content, reasoning;
  std::vector<ToolCallPiece> calls;
  std::vector<TokenId> prompt_ids, ids;      // of the prompt, with its first token; of what was generated
  std::vector<ReportedToken> tokens;         // the echoed prompt's, then the generated ones; empty without logprobs
  std::vector<ReportedToken> prompt_tokens;  // with prompt_logprobs
  FinishReason finish = FinishReason::kNone;
  bool has_called = false;         // some tool, by its finish
  boost::json::value stop_reason;  // the stop string or explicit stop id that ended it; null for the end of sequence
  std::string error;               // finish == kError
  bool is_own_fault = false;       // an error of this request alone
  bool is_impossible = false;      // an error: what it asks for cannot be

  bool has_news() const {
    return !content.empty() || !reasoning.empty() || !calls.empty() || !ids.empty() || !tokens.empty() ||
           finish != FinishReason::kNone;
  }
  void append(ChoiceText&& later);
};

struct ChoiceOptions {
  std::vector<std::string> stop;
  std::vector<TokenId> explicit_stop_ids;  // of stop_token_ids, the end-of-sequence ids left out
  int min_tokens = 0;
  bool skip_special_tokens = true, include_stop = false;
  bool logprobs = false, prompt_logprobs = false, ids = false;
  bool parse_reasoning = false, include_reasoning = true;
  std::optional<TokenId> thought_begin, thought_end;  // the tags, where they are tokens
  bool keeps_space = false;                    // behind a thought: the form that was asked for may begin with some
  const ToolCallSyntax* tool_calls = nullptr;  // calls are looked for; borrowed, as their tools are
  const boost::json::array* tools = nullptr;
  bool echo = false;         // the prompt is the beginning of the text
  bool prompt_only = false;  // echo without an answer: the engine's one token is dropped
};

// Turns what the engine says of one choice into text: characters, stop strings, thought and answer. One thread at a
// time.
class Choice {
 public:
  // Borrows all.
  Choice(const Tokenizer& tokenizer, const ChoiceOptions& options, const Prompt& prompt);

  // What is certain now. After finished(), nothing.
  ChoiceText add(RequestOutput output);

  bool finished() const { return finished_; }
  // It ended at a stop string, which the engine does not know of yet.
  bool must_abort() const { return must_abort_; }
  int num_generated() const { return num_generated_; }
  int num_reasoning() const { return num_reasoning_; }  // of them, in the thought
  int num_cached() const { return num_cached_; }

 private:
  void add_prompt(ChoiceText& text);
  void add_token(SampledToken&& token, bool is_last_of_stop, ChoiceText& text);
  void put(std::string&& piece, ChoiceText& text);
  void put_content(std::string&& piece, ChoiceText& text);
  void finish(FinishReason reason, ChoiceText& text);
  static void take_calls(ToolCallParser::Piece&& piece, ChoiceText& text);

  const ChoiceOptions& options_;
  const Prompt& prompt_;
  const Tokenizer& tokenizer_;
  StreamingDetokenizer detokenizer_;
  std::optional<ReasoningParser> reasoning_;
  std::optional<ToolCallParser> calls_;
  std::vector<SampledToken> prompt_logprobs_;
  bool prompt_done_ = false;
  bool finished_ = false, must_abort_ = false;
  int num_generated_ = 0, num_reasoning_ = 0, num_cached_ = 0;
};

}  // namespace cachalot::openai
