#include "text/answer_text.h"

#include <algorithm>
#include <utility>

namespace cachalot {

namespace {

std::vector<uint32_t> borders_of(std::string_view text) {
  std::vector<uint32_t> borders(text.size() + 1, 0);
  uint32_t border = 0;
  for (size_t index = 1; index < text.size(); ++index) {
    while (border > 0 && text[index] != text[border]) border = borders[border];
    if (text[index] == text[border]) ++border;
    borders[index + 1] = border;
  }
  return borders;
}

}  // namespace

// Never called on a complete pattern: a match ends all reading.
void StopMatcher::Pattern::advance(char byte) {
  while (progress > 0 && text[progress] != byte) progress = borders[progress];
  if (text[progress] == byte) ++progress;
}

StopMatcher::StopMatcher(std::vector<std::string> stop_strings, bool include_stop) : include_stop_(include_stop) {
  std::erase(stop_strings, "");
  // Longest first: the first that is found complete is the longest of those that end there.
  std::ranges::stable_sort(stop_strings, std::ranges::greater{}, &std::string::size);
  for (std::string& text : stop_strings) {
    std::vector<uint32_t> borders = borders_of(text);
    patterns_.push_back({.text = std::move(text), .borders = std::move(borders)});
  }
}

void StopMatcher::add(std::string_view text, std::string& released) {
  if (stopped()) return;
  for (const char byte : text) {
    held_ += byte;
    for (Pattern& pattern : patterns_) pattern.advance(byte);
    const auto complete = std::ranges::find_if(patterns_, &Pattern::is_complete);
    if (complete != patterns_.end()) return stop_at(*complete, released);
  }
  uint32_t num_kept = 0;
  for (const Pattern& pattern : patterns_) num_kept = std::max(num_kept, pattern.progress);
  const size_t num_released = held_.size() - num_kept;
  released.append(held_, 0, num_released);
  held_.erase(0, num_released);
}

void StopMatcher::finish(std::string& released) {
  released += held_;
  held_.clear();
}

void StopMatcher::stop_at(const Pattern& pattern, std::string& released) {
  matched_ = pattern.text;
  released.append(held_, 0, held_.size() - (include_stop_ ? 0 : matched_.size()));
  held_.clear();
}

StreamingDetokenizer::StreamingDetokenizer(const Tokenizer& tokenizer, std::vector<std::string> stop_strings,
                                           bool skip_special, bool include_stop)
    : tokenizer_(tokenizer), skip_special_(skip_special), stops_(std::move(stop_strings), include_stop) {}

std::string StreamingDetokenizer::add(TokenId token, bool may_stop) {
  std::string characters, released;
  characters_.add(tokenizer_.token_bytes(token, skip_special_), characters);
  if (!may_stop) return characters;
  stops_.add(characters, released);
  return released;
}

std::string StreamingDetokenizer::finish(bool is_cut) {
  std::string characters, released;
  if (!is_cut) characters_.finish(characters);
  stops_.add(characters, released);
  stops_.finish(released);
  return released;
}

namespace {

constexpr std::string_view kOpen = "<think>", kClose = "</think>";
constexpr std::string_view kWhiteSpace = " \t\r\n";

}  // namespace

ReasoningParser::Piece ReasoningParser::add(std::string_view text) {
  Piece piece;
  pending_ += text;
  if (state_ == State::kStart) leave_start(piece);
  if (state_ == State::kThought) read_thought(piece);
  if (state_ == State::kBehind) {
    pending_.erase(0, std::min(pending_.find_first_not_of(kWhiteSpace), pending_.size()));
    if (!pending_.empty()) state_ = State::kContent;
  }
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
  if (may_begin_ && rest.starts_with(kOpen)) {
    pending_.erase(0, begin + kOpen.size());
    state_ = State::kThought;
  } else if (may_begin_ ? !kOpen.starts_with(rest) : !rest.empty()) {
    state_ = starts_inside_ ? State::kThought : State::kContent;
  } else if (starts_inside_) {
    // White space that the model wrote itself; certain, unlike the tag that may follow.
    piece.reasoning += pending_.substr(0, begin);
    pending_.erase(0, begin);
  }
}

void ReasoningParser::read_thought(Piece& piece) {
  const size_t close = may_end_ ? pending_.find(kClose) : std::string::npos;
  const size_t mark = end_mark_.empty() ? std::string::npos : pending_.find(end_mark_);
  if (const size_t end = std::min(close, mark); end != std::string::npos) {
    piece.reasoning += pending_.substr(0, end);
    pending_.erase(0, end + (close < mark ? kClose.size() : 0));
    state_ = keeps_space_ ? State::kContent : State::kBehind;
    return;
  }
  const size_t num_held = std::max(may_end_ ? partial_mark(pending_, kClose) : 0, partial_mark(pending_, end_mark_));
  const size_t num_certain = pending_.size() - num_held;
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
