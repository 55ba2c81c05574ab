#include "openai/answer/block_format.h"

#include <utility>

#include "base/text.h"

namespace cachalot::openai {

std::string BlockFormat::whole(std::span<ChoiceText> choices, const Usage& usage) {
  take(std::exchange(choices.front(), {}));
  close_last();
  return whole_answer(usage);
}

void BlockFormat::begin(size_t /*num_choices*/, const Usage& usage, std::string& events) {
  events_ = &events;
  write_begin(usage);
}

void BlockFormat::add(size_t /*index*/, const ChoiceText& text, const std::optional<Usage>& /*usage*/,
                      std::string& events) {
  events_ = &events;
  take(text);
}

void BlockFormat::end(const Usage& usage, std::string& events) {
  events_ = &events;
  close_last();
  write_end(usage);
}

void BlockFormat::fail(const ApiError& error, std::string& events) {
  events_ = &events;
  write_failure(error);
}

void BlockFormat::take(const ChoiceText& text) {
  if (!text.reasoning.empty()) {
    if (!block_ || block_->kind != Block::Kind::kThought) open({.kind = Block::Kind::kThought});
    grow(text.reasoning);
  }
  // What goes on with a call stands before a text that came with it.
  size_t next = 0;
  if (block_ && block_->kind == Block::Kind::kCall && !text.calls.empty() && text.calls.front().index == block_->call)
    take_call(text.calls[next++]);
  take_text(text);
  for (; next < text.calls.size(); ++next) take_call(text.calls[next]);
  if (text.finish == FinishReason::kNone) return;
  finish_ = text.finish;
  has_called_ = text.has_called;
  stop_reason_ = text.stop_reason;
}

void BlockFormat::take_text(const ChoiceText& text) {
  std::vector<ReportedToken> tokens = std::exchange(waiting_, {});
  for (const ReportedToken& token : text.tokens)
    if (token.is_in_text && !token.is_in_thought) tokens.push_back(token);
  const bool is_open = block_ && block_->kind == Block::Kind::kText;
  const std::string piece = std::exchange(space_, {}) + text.content;
  if (!is_open && trimmed(piece).empty()) {
    space_ = piece;
    waiting_ = std::move(tokens);
    return;
  }
  if (!is_open) open({.kind = Block::Kind::kText});
  if (piece.empty() && tokens.empty()) return;
  block_->tokens.insert(block_->tokens.end(), tokens.begin(), tokens.end());
  grow(piece, tokens);
}

void BlockFormat::take_call(const ToolCallPiece& call) {
  if (!block_ || block_->kind != Block::Kind::kCall || block_->call != call.index)
    open({.kind = Block::Kind::kCall, .call = call.index, .name = call.name, .call_id = call.id});
  if (!call.arguments.empty()) grow(call.arguments);
}

void BlockFormat::open(Block block) {
  close(false);
  if (block.kind == Block::Kind::kCall) {
    space_.clear();
    waiting_.clear();
  }
  has_answered_ |= block.kind != Block::Kind::kThought;
  block.index = num_blocks_++;
  block_ = std::move(block);
  write_block_begin(*block_);
}

void BlockFormat::grow(std::string_view piece, std::span<const ReportedToken> tokens) {
  block_->text += piece;
  write_piece(*block_, piece, tokens);
}

void BlockFormat::close(bool is_cut) {
  if (!block_) return;
  write_block_end(*block_, is_cut);
  block_.reset();
}

void BlockFormat::close_last() {
  const bool is_cut = finish_ == FinishReason::kLength;
  if (!has_answered_ && !is_cut && wants_some_text()) open({.kind = Block::Kind::kText});
  close(is_cut);
}

}  // namespace cachalot::openai
