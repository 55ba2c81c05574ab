#include "openai/answer/choice.h"

#include <algorithm>
#include <iterator>

namespace cachalot::openai {

void ChoiceText::append(ChoiceText&& later) {
  content += later.content;
  reasoning += later.reasoning;
  for (ToolCallPiece& call : later.calls) {
    if (call.index < calls.size())
      calls[call.index].arguments += call.arguments;
    else
      calls.push_back(std::move(call));
  }
  std::ranges::move(later.prompt_ids, std::back_inserter(prompt_ids));
  std::ranges::move(later.ids, std::back_inserter(ids));
  std::ranges::move(later.tokens, std::back_inserter(tokens));
  std::ranges::move(later.prompt_tokens, std::back_inserter(prompt_tokens));
  finish = later.finish;
  has_called = later.has_called;
  stop_reason = std::move(later.stop_reason);
  error = std::move(later.error);
  is_own_fault = later.is_own_fault;
  is_impossible = later.is_impossible;
}

Choice::Choice(const Tokenizer& tokenizer, const ChoiceOptions& options, const Prompt& prompt)
    : options_(options),
      prompt_(prompt),
      tokenizer_(tokenizer),
      detokenizer_(tokenizer, options.stop, options.skip_special_tokens, options.include_stop) {
  if (options.parse_reasoning)
    reasoning_.emplace(prompt.opens_thought,
                       options.tool_calls ? options.tool_calls->thought_end() : std::string_view(),
                       options.keeps_space);
  if (reasoning_ && options.thought_begin) reasoning_->begin_is_token();
  if (reasoning_ && options.thought_end) reasoning_->end_is_token();
  if (options.tool_calls) calls_.emplace(*options.tool_calls, *options.tools);
}

ChoiceText Choice::add(RequestOutput output) {
  ChoiceText text;
  if (finished_) return text;
  num_cached_ = std::max(num_cached_, output.num_cached_tokens);
  std::ranges::move(output.prompt_logprobs, std::back_inserter(prompt_logprobs_));
  if (!output.tokens.empty() && !std::exchange(prompt_done_, true)) add_prompt(text);
  for (size_t i = 0; i < output.tokens.size() && !finished_; ++i)
    add_token(std::move(output.tokens[i]), output.finish == FinishReason::kStop && i + 1 == output.tokens.size(), text);
  if (finished_ || output.finish == FinishReason::kNone) return text;
  text.error = std::move(output.error);
  text.is_own_fault = output.is_own_fault;
  text.is_impossible = output.error_code == ErrorCode::kInvalidArgument;
  finish(options_.prompt_only && output.finish == FinishReason::kStop ? FinishReason::kLength : output.finish, text);
  return text;
}

void Choice::add_prompt(ChoiceText& text) {
  if (options_.echo) text.content = prompt_.text;
  if (options_.ids) text.prompt_ids = prompt_.tokens;
  std::vector<ReportedToken> tokens;
  tokens.push_back(
      {.sampled = {.token = prompt_.tokens.front()}, .has_logprob = false, .is_in_text = !prompt_.first_is_added});
  for (SampledToken& token : prompt_logprobs_) tokens.push_back({.sampled = std::move(token)});
  for (ReportedToken& token : tokens)
    if (prompt_.skips_special && tokenizer_.is_special(token.sampled.token)) token.is_in_text = false;
  if (options_.echo && options_.logprobs) text.tokens = tokens;
  if (options_.prompt_logprobs) text.prompt_tokens = std::move(tokens);
  prompt_logprobs_ = {};
}

void Choice::add_token(SampledToken&& token, bool is_last_of_stop, ChoiceText& text) {
  if (options_.prompt_only) return;
  ++num_generated_;
  const TokenId id = token.token;
  if (options_.ids) text.ids.push_back(id);
  const bool was_in_thought = reasoning_ && reasoning_->in_thought();
  if (options_.logprobs)
    text.tokens.push_back({.sampled = std::move(token),
                           .is_in_text = !(options_.skip_special_tokens && tokenizer_.is_special(id)),
                           .is_in_thought = was_in_thought});
  if (is_last_of_stop) {
    const auto& explicit_ids = options_.explicit_stop_ids;
    if (std::ranges::find(explicit_ids, id) != explicit_ids.end()) text.stop_reason = id;
    // The token that ends an answer is not a part of it.
    if (!options_.include_stop) return;
  }
  if (reasoning_ && id == options_.thought_begin) reasoning_->begin_may_come();
  if (reasoning_ && id == options_.thought_end) reasoning_->end_may_come();
  put(detokenizer_.add(id, num_generated_ > options_.min_tokens), text);
  const bool is_in_thought = reasoning_ && reasoning_->in_thought();
  // Its tags, too, and white space behind it, which stands in no text.
  if (options_.logprobs && reasoning_ && (is_in_thought || reasoning_->behind_thought()))
    text.tokens.back().is_in_thought = true;
  if (was_in_thought && is_in_thought) ++num_reasoning_;
  if (!detokenizer_.stopped()) return;
  text.stop_reason = detokenizer_.stop_string();
  must_abort_ = !is_last_of_stop;
  finish(FinishReason::kStop, text);
}

void Choice::put(std::string&& piece, ChoiceText& text) {
  if (!reasoning_) return put_content(std::move(piece), text);
  ReasoningParser::Piece parts = reasoning_->add(piece);
  put_content(std::move(parts.content), text);
  if (options_.include_reasoning) text.reasoning += parts.reasoning;
}

void Choice::put_content(std::string&& piece, ChoiceText& text) {
  if (!calls_) {
    text.content += piece;
    return;
  }
  take_calls(calls_->add(piece), text);
}

void Choice::finish(FinishReason reason, ChoiceText& text) {
  finished_ = true;
  text.finish = reason;
  put(detokenizer_.finish(reason == FinishReason::kLength), text);
  // The last bytes may have completed a stop string.
  if (detokenizer_.stopped() && reason == FinishReason::kLength) {
    text.finish = FinishReason::kStop;
    text.stop_reason = detokenizer_.stop_string();
  }
  if (reasoning_) {
    ReasoningParser::Piece parts = reasoning_->finish();
    put_content(std::move(parts.content), text);
    if (options_.include_reasoning) text.reasoning += parts.reasoning;
  }
  if (!calls_) return;
  take_calls(calls_->finish(text.finish != FinishReason::kStop), text);
  text.has_called = calls_->num_calls() > 0;
}

void Choice::take_calls(ToolCallParser::Piece&& piece, ChoiceText& text) {
  text.content += piece.content;
  for (ToolCallPiece& call : piece.calls) {
    if (!text.calls.empty() && text.calls.back().index == call.index)
      text.calls.back().arguments += call.arguments;
    else
      text.calls.push_back(std::move(call));
  }
}

}  // namespace cachalot::openai
