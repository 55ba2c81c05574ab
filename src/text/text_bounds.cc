#include "text/text_bounds.h"

#include <algorithm>

#include "base/math.h"

namespace cachalot {
namespace {

constexpr size_t kPieceBytes = 64 << 10;

bool is_word_byte(char byte) {
  return ('0' <= byte && byte <= '9') || ('a' <= byte && byte <= 'z') || ('A' <= byte && byte <= 'Z');
}

}  // namespace

TextBounds::TextBounds(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {
  most_of_a_token_.fill(1);
  for (TokenId id = 0; id < tokenizer.vocab_size(); id++) {
    const Counts counts = count(tokenizer.token_bytes(id, false));
    for (size_t kind = 0; kind < counts.size(); kind++)
      most_of_a_token_[kind] = std::max(most_of_a_token_[kind], counts[kind]);
  }
  // A letter and its accent, a ligature, full width, white space around: what normalizers change.
  constexpr std::string_view kProbe = "  e\u0301 \ufb01 \uff21 A  ";
  const auto ids = tokenizer.encode(kProbe, false);
  may_change_text_ = !ids || tokenizer.decode(*ids, false) != kProbe;
  may_cut_ = !may_change_text_ && cuts_before_lines();
}

TextBounds::Counts TextBounds::count(std::string_view text) {
  static constexpr auto kKinds = [] {
    std::array<uint8_t, 256> kinds{};
    for (int byte = 0; byte < 256; byte++) {
      const auto letter = static_cast<char>(byte | 0x20);
      kinds[static_cast<size_t>(byte)] = byte >= 0x80                               ? kHigh
                                         : '0' <= byte && byte <= '9'               ? kDigit
                                         : 'a' <= letter && letter <= 'z'           ? kLetter
                                         : byte == ' ' || (9 <= byte && byte <= 13) ? kSpace
                                                                                    : kOther;
    }
    return kinds;
  }();
  Counts counts{};
  for (const char byte : text) counts[kKinds[static_cast<unsigned char>(byte)]]++;
  counts[kAny] = static_cast<int64_t>(text.size());
  return counts;
}

int64_t TextBounds::least_num_tokens(std::string_view text) const {
  // Composition makes of three bytes or characters one, at most.
  const int64_t slack = may_change_text_ ? 4 : 1;
  const Counts counts = count(text);
  int64_t least = 0;
  for (size_t kind = 0; kind < counts.size(); kind++)
    least = std::max(least, ceil_div(counts[kind], most_of_a_token_[kind] * slack));
  return least;
}

// Whether texts may be cut between a line break and a letter or digit: no token spans one, and cutting there changes
// nothing around it.
bool TextBounds::cuts_before_lines() const {
  for (TokenId id = 0; id < tokenizer_.vocab_size(); id++) {
    const std::string_view bytes = tokenizer_.token_bytes(id, false);
    for (size_t idx = 1; idx < bytes.size(); idx++)
      if (bytes[idx - 1] == '\n' && is_word_byte(bytes[idx])) return false;
  }
  for (const std::string_view before : {"a", "1", ".", "a ", "\t", "\r", "}", "\n", "a\n ", "\u00e9", "\u4e2d", "  "})
    for (const std::string_view breaks : {"\n", "\n\n", " \n", "\r\n", "\n \n", "\n\n\n\n"})
      for (const std::string_view after : {"a", "A1", "1", "12345", "the end"}) {
        const std::string left = std::string(before) + std::string(breaks);
        auto both = tokenizer_.encode(left, false);
        const auto right = tokenizer_.encode(after, false), whole = tokenizer_.encode(left + std::string(after), false);
        if (!both || !right || !whole) return false;
        both->insert(both->end(), right->begin(), right->end());
        if (*both != *whole) return false;
      }
  return true;
}

// Up to the last place for a cut in the first kPieceBytes, or the first behind them.
size_t TextBounds::piece_size(std::string_view text) const {
  if (!may_cut_ || text.size() <= kPieceBytes) return text.size();
  const auto is_place = [&](size_t idx) { return text[idx - 1] == '\n' && is_word_byte(text[idx]); };
  for (size_t idx = kPieceBytes; idx > 0; idx--)
    if (is_place(idx)) return idx;
  for (size_t idx = kPieceBytes; idx < text.size(); idx++)
    if (is_place(idx)) return idx;
  return text.size();
}

Result<std::vector<TokenId>> TextBounds::encode(std::string_view text, bool add_bos) const {
  std::vector<TokenId> tokens;
  do {
    const size_t size = piece_size(text);
    ASSIGN_OR_RETURN(const std::vector<TokenId> piece, tokenizer_.encode(text.substr(0, size), add_bos));
    tokens.insert(tokens.end(), piece.begin(), piece.end());
    text.remove_prefix(size);
    add_bos = false;
  } while (!text.empty());
  return tokens;
}

}  // namespace cachalot
