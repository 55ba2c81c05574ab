#include "base/text.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <numeric>
#include <ranges>

namespace cachalot {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

enum class Utf8Kind { kWhole, kPartial, kInvalid };

struct Utf8Part {
  Utf8Kind kind;
  size_t size;
};

bool is_between(uint8_t byte, uint8_t low, uint8_t high) {
  return byte >= low && byte <= high;
}

// The character, the beginning of one, or the maximal invalid part that non-empty bytes begin with.
Utf8Part first_part(std::string_view bytes) {
  const auto byte_at = [&](size_t index) { return static_cast<uint8_t>(bytes[index]); };
  const uint8_t lead = byte_at(0);
  if (lead < 0x80) return {Utf8Kind::kWhole, 1};
  if (!is_between(lead, 0xC2, 0xF4)) return {Utf8Kind::kInvalid, 1};
  // Table 3-7 of the Unicode standard: the second byte excludes overlong forms, surrogates and what is above U+10FFFF.
  const size_t size = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  uint8_t low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
  uint8_t high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
  for (size_t index = 1; index < size; ++index) {
    if (index == bytes.size()) return {Utf8Kind::kPartial, index};
    if (!is_between(byte_at(index), low, high)) return {Utf8Kind::kInvalid, index};
    low = 0x80;
    high = 0xBF;
  }
  return {Utf8Kind::kWhole, size};
}

// Of a whole character.
uint32_t code_point(std::string_view character) {
  if (character.size() == 1) return static_cast<uint8_t>(character[0]);
  uint32_t code = static_cast<uint8_t>(character[0]) & (0xff >> (character.size() + 1));
  for (const char byte : character.substr(1)) code = code << 6 | (static_cast<uint8_t>(byte) & 0x3f);
  return code;
}

// Control characters beyond ASCII's, what has no width, separates lines, or changes the direction of what follows.
bool is_invisible(uint32_t code) {
  struct Range {
    uint32_t first, last;
  };
  constexpr std::array<Range, 9> kRanges{{{0x80, 0x9f},
                                          {0xad, 0xad},
                                          {0x61c, 0x61c},
                                          {0x180e, 0x180e},
                                          {0x200b, 0x200f},
                                          {0x2028, 0x202e},
                                          {0x2060, 0x206f},
                                          {0xfeff, 0xfeff},
                                          {0xe0000, 0xe0fff}}};
  return std::ranges::any_of(kRanges, [&](const Range& range) { return code >= range.first && code <= range.last; });
}

// One line of UTF-8 for whatever bytes; `mark` stands at both ends, and is escaped within.
std::string one_line(std::string_view mark, std::string_view bytes, size_t max_bytes) {
  std::string text(mark);
  std::string_view rest = bytes;
  while (!rest.empty()) {
    const Utf8Part part = first_part(rest);
    if (bytes.size() - rest.size() + part.size > max_bytes) break;
    const std::string_view taken = rest.substr(0, part.size);
    rest.remove_prefix(part.size);
    const uint32_t code = part.kind == Utf8Kind::kWhole ? code_point(taken) : 0;
    const bool is_ascii_control = code < 0x20 || code == 0x7f;  // and what is no character at all
    if (code == '\n' || code == '\r' || code == '\t') {
      text += code == '\n' ? "\\n" : code == '\r' ? "\\r" : "\\t";
    } else if (is_ascii_control) {
      for (const char byte : taken) text += fmt::format("\\x{:02x}", static_cast<uint8_t>(byte));
    } else if (is_invisible(code)) {
      text += fmt::format("\\u{{{:x}}}", code);
    } else {
      if (!mark.empty() && (taken == mark || taken == "\\")) text += '\\';
      text += taken;
    }
  }
  text += mark;
  if (!rest.empty()) text += fmt::format("... ({} bytes)", bytes.size());
  return text;
}

// Levenshtein's distance.
size_t edit_distance(std::string_view left, std::string_view right) {
  std::vector<size_t> row(right.size() + 1);
  std::iota(row.begin(), row.end(), 0);
  for (size_t i = 1; i <= left.size(); i++) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= right.size(); j++) {
      const size_t substituted = diagonal + (left[i - 1] != right[j - 1] ? 1 : 0);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, substituted});
    }
  }
  return row.back();
}

}  // namespace

std::string quoted(std::string_view bytes, size_t max_bytes) {
  return one_line("'", bytes, max_bytes);
}

std::string escaped(std::string_view bytes, size_t max_bytes) {
  return one_line("", bytes, max_bytes);
}

std::string name_text(std::string_view bytes, size_t max_bytes) {
  const auto is_plain = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           std::string_view("-_., ").contains(c);
  };
  const bool bare = !bytes.empty() && bytes.size() <= max_bytes && std::ranges::all_of(bytes, is_plain);
  return bare ? std::string(bytes) : quoted(bytes, max_bytes);
}

std::string listed(const std::vector<std::string>& names, size_t max_names) {
  std::string text;
  for (size_t idx = 0; idx < std::min(names.size(), max_names); idx++)
    text += (idx > 0 ? ", " : "") + name_text(names[idx], 200);
  return names.size() <= max_names ? text : fmt::format("{} and {} more", text, names.size() - max_names);
}

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kWhiteSpace = " \t\r\n\f\v";
  const size_t begin = std::min(text.find_first_not_of(kWhiteSpace), text.size());
  return text.substr(begin, text.find_last_not_of(kWhiteSpace) + 1 - begin);
}

size_t partial_mark(std::string_view text, std::string_view mark) {
  if (mark.empty()) return 0;
  for (size_t size = std::min(text.size(), mark.size() - 1); size > 0; --size)
    if (text.ends_with(mark.substr(0, size))) return size;
  return 0;
}

bool has_word(std::string_view words, std::string_view word) {
  for (const auto part : std::views::split(words, ' '))
    if (std::string_view(part.begin(), part.end()) == word) return true;
  return false;
}

std::vector<std::string> words_of(std::string_view words) {
  std::vector<std::string> all;
  for (const auto part : std::views::split(words, ' ')) all.emplace_back(part.begin(), part.end());
  return all;
}

std::string counted(int64_t count, std::string_view thing) {
  return fmt::format("{} {}{}", count, thing, count == 1 ? "" : "s");
}

std::string nearest_name(std::string_view name, const std::vector<std::string>& known) {
  std::string best;
  size_t best_distance = name.size() / 2 + 1;  // anything further is no likeness
  for (const std::string& candidate : known) {
    const size_t at_least = std::max(name.size(), candidate.size()) - std::min(name.size(), candidate.size());
    if (at_least >= best_distance) continue;
    const size_t distance = edit_distance(name, candidate);
    if (distance >= best_distance) continue;
    best_distance = distance;
    best = candidate;
  }
  return best;
}

void Utf8Assembler::add(std::string_view bytes, std::string& text) {
  if (!waiting_.empty()) {
    waiting_ += bytes;
    bytes = waiting_;
  }
  while (!bytes.empty()) {
    const Utf8Part part = first_part(bytes);
    if (part.kind == Utf8Kind::kPartial) break;
    text += part.kind == Utf8Kind::kWhole ? bytes.substr(0, part.size) : kReplacement;
    bytes.remove_prefix(part.size);
  }
  waiting_ = std::string(bytes);
}

void Utf8Assembler::finish(std::string& text) {
  if (!waiting_.empty()) text += kReplacement;
  waiting_.clear();
}

std::string to_valid_utf8(std::string_view bytes) {
  std::string text;
  text.reserve(bytes.size());
  Utf8Assembler assembler;
  assembler.add(bytes, text);
  assembler.finish(text);
  return text;
}

}  // namespace cachalot
