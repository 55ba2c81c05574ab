#include "text/reasoning_parser.h"

#include <algorithm>
#include <utility>

namespace cachalot {
namespace {

constexpr std::string_view kOpen = "<think>", kClose = "</think>";
constexpr std::string_view kWhiteSpace = " \t\r\n";

// How many bytes at the end of the text may be the beginning of the tag.
size_t open_ended_size(std::string_view text, std::string_view tag) {
  for (size_t size = std::min(text.size(), tag.size() - 1); size > 0; --size) {
    if (text.ends_with(tag.substr(0, size))) return size;
  }
  return 0;
}

}  // namespace

ReasoningParser::Piece ReasoningParser::add(std::string_view text) {
  Piece piece;
  pending_ += text;
  if (state_ == State::kStart) leave_start(piece);
  if (state_ == State::kThought) read_thought(piece);
  if (state_ == State::kContent) piece.content += std::exchange(pending_, {});
  return piece;
}

ReasoningParser::Piece ReasoningParser::finish() {
  Piece piece;
  const bool is_thought = state_ == State::kThought || (state_ == State::kStart && starts_inside_);
  (is_thought ? piece.reasoning : piece.content) = std::exchange(pending_, {});
  return piece;
}

// At the start: waits until the text shows whether it begins with the opening tag.
void ReasoningParser::leave_start(Piece& piece) {
  const size_t begin = std::min(pending_.find_first_not_of(kWhiteSpace), pending_.size());
  const std::string_view rest = std::string_view(pending_).substr(begin);
  if (rest.starts_with(kOpen)) {
    pending_.erase(0, begin + kOpen.size());
    state_ = State::kThought;
  } else if (!kOpen.starts_with(rest)) {
    state_ = starts_inside_ ? State::kThought : State::kContent;
  } else if (starts_inside_) {
    // White space that the model wrote itself; certain, unlike the tag that may follow.
    piece.reasoning += pending_.substr(0, begin);
    pending_.erase(0, begin);
  }
}

void ReasoningParser::read_thought(Piece& piece) {
  const size_t close = pending_.find(kClose);
  if (close != std::string::npos) {
    piece.reasoning += pending_.substr(0, close);
    pending_.erase(0, close + kClose.size());
    state_ = State::kContent;
    return;
  }
  const size_t num_certain = pending_.size() - open_ended_size(pending_, kClose);
  piece.reasoning += pending_.substr(0, num_certain);
  pending_.erase(0, num_certain);
}

bool ReasoningParser::opens_thought(std::string_view prompt) {
  const size_t open = prompt.rfind(kOpen);
  if (open == std::string_view::npos) return false;
  // A tag that a user wrote about is followed by the marker of the next turn, and so closed as well.
  const std::string_view rest = prompt.substr(open);
  return !rest.contains(kClose) && !rest.contains("<｜") && !rest.contains("<|");
}

}  // namespace cachalot
