#include "text/mark_guard.h"

#include <algorithm>

#include "base/text.h"
#include "config/json.h"

namespace cachalot {

namespace json = boost::json;

namespace {

constexpr std::string_view kTags[] = {"<think>", "</think>"};

// Characters for private use, of which one that the texts do not hold is the sign; if they hold them all, they lose the
// last.
constexpr std::string_view kSigns[] = {"\ue5a1", "\uf2c4", "\ueb37", "\uf61e", "\ue90d", "\uf3a8"};

// What a template's trim() takes off: Unicode's White_Space.
constexpr std::string_view kSpaces[] = {" ",      "\t",     "\n",     "\v",     "\f",     "\r",     "\u0085",
                                        "\u00a0", "\u1680", "\u2000", "\u2001", "\u2002", "\u2003", "\u2004",
                                        "\u2005", "\u2006", "\u2007", "\u2008", "\u2009", "\u200a", "\u2028",
                                        "\u2029", "\u202f", "\u205f", "\u3000"};

std::string_view trim_end(std::string_view text) {
  for (const std::string_view* space = kSpaces; space != std::end(kSpaces);) {
    const bool ends = text.ends_with(*space);
    if (ends) text.remove_suffix(space->size());
    space = ends ? kSpaces : space + 1;
  }
  return text;
}

size_t first_character(std::string_view text) {
  size_t size = 1;
  while (size < text.size() && (static_cast<unsigned char>(text[size]) & 0xc0) == 0x80) size++;
  return size;
}

enum class Match { kNone, kBegun, kWhole };

// Whether the text begins with a mark, or is the beginning of one.
Match match_at_begin(std::span<const std::string> marks, std::string_view text) {
  for (size_t depth = 0; !marks.empty(); depth++) {
    if (marks.front().size() == depth && depth > 0) return Match::kWhole;
    if (depth == text.size()) return Match::kBegun;
    const auto range = std::ranges::equal_range(
        marks, static_cast<unsigned char>(text[depth]), {},
        [&](const auto& mark) { return depth < mark.size() ? static_cast<unsigned char>(mark[depth]) : -1; });
    marks = std::span(range.begin(), range.end());
  }
  return Match::kNone;
}

}  // namespace

MarkGuard::Marks::Marks(std::vector<std::string> marks) : texts(std::move(marks)) {
  // A single character cannot be broken.
  std::erase_if(texts, [](const std::string& mark) { return first_character(mark) == mark.size(); });
  std::ranges::sort(texts);
  for (const std::string& mark : texts) begins_some[static_cast<unsigned char>(mark.front())] = true;
}

MarkGuard::MarkGuard(const Tokenizer& tokenizer)
    : marks_(tokenizer.marks()), marks_without_tags_([&] {
        std::vector<std::string> marks = tokenizer.marks();
        for (const std::string_view tag : kTags) std::erase(marks, tag);
        return marks;
      }()) {}

// What a text ends with may be the beginning of a mark that another text goes on with; white space around texts is what
// templates take off.
bool MarkGuard::break_in_text(const Marks& marks, std::string_view sign, std::string_view text, std::string& broken) {
  const size_t end = trim_end(text).size();
  size_t written = 0;
  bool found = false;
  for (size_t i = 0; i < end; i++) {
    if (!marks.begins_some[static_cast<unsigned char>(text[i])]) continue;
    const Match match = match_at_begin(marks.texts, text.substr(i, end - i));
    if (match == Match::kNone) continue;
    found = true;
    if (sign.empty()) return true;
    const size_t place = match == Match::kWhole ? i + first_character(text.substr(i)) : end;
    broken.append(text, written, place - written).append(sign);
    written = place;
    if (match == Match::kBegun) break;
  }
  if (found) broken.append(text, written);
  return found;
}

bool MarkGuard::break_in(const Marks& marks, std::string_view sign, json::value& value) {
  bool found = false;
  std::string broken;
  if (json::string* text = value.if_string()) {
    found = break_in_text(marks, sign, *text, broken);
    if (found && !sign.empty()) *text = broken;
  } else if (json::array* list = value.if_array()) {
    for (json::value& item : *list) found |= break_in(marks, sign, item);
  } else if (json::object* object = value.if_object()) {
    bool has_mark = false;
    for (auto& [key, member] : *object) {
      found |= break_in(marks, sign, member);
      has_mark |= break_in_text(marks, {}, key, broken);
    }
    found |= has_mark;
    if (!has_mark || sign.empty()) return found;
    json::object renamed;
    for (auto& [key, member] : *object) {
      broken.clear();
      renamed[break_in_text(marks, sign, key, broken) ? std::string_view(broken) : std::string_view(key)] =
          std::move(member);
    }
    *object = std::move(renamed);
  }
  return found;
}

bool MarkGuard::break_all(std::string_view sign, json::object& context) const {
  bool found = false;
  for (auto& [key, value] : context) {
    json::array* messages = key == "messages" ? value.if_array() : nullptr;
    if (!messages) {
      found |= break_in(marks_, sign, value);
      continue;
    }
    for (json::value& message : *messages) {
      json::object& object = message.as_object();
      const json::value* role = object.if_contains("role");
      for (auto& [name, member] : object) {
        const bool may_have_tags = name == "content" && role && *role == "assistant";
        found |= break_in(may_have_tags ? marks_without_tags_ : marks_, sign, member);
      }
    }
  }
  return found;
}

std::string_view MarkGuard::break_marks(json::object& context) const {
  if (marks_.texts.empty() || !break_all({}, context)) return {};
  const std::string text = json_text(context);
  const auto* const free = std::ranges::find_if(kSigns, [&](std::string_view sign) { return !text.contains(sign); });
  const std::string_view sign = free == std::end(kSigns) ? kSigns[std::size(kSigns) - 1] : *free;
  break_all(sign, context);
  return sign;
}

std::vector<size_t> MarkGuard::take_out(std::string_view sign, std::string& prompt) {
  std::vector<size_t> places;
  if (sign.empty()) return places;
  std::string without;
  size_t begin = 0;
  for (size_t place; (place = prompt.find(sign, begin)) != std::string::npos; begin = place + sign.size()) {
    without.append(prompt, begin, place - begin);
    places.push_back(without.size());
  }
  prompt = without.append(prompt, begin);
  return places;
}

}  // namespace cachalot
