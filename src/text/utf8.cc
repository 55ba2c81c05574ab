#include "text/utf8.h"

#include <cstdint>

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

}  // namespace

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
