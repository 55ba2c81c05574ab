#include "cluster/mask.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <functional>

namespace cachalot {

namespace {

constexpr std::string_view kMasked = "***";
// How names end behind which a secret stands.
constexpr std::array<std::string_view, 13> kNames{"api-key", "api_key",       "apikey",     "api-keys", "api_keys",
                                                  "secret",  "secrets",       "token",      "password", "passwords",
                                                  "passwd",  "authorization", "credentials"};

char lower(char letter) {
  return static_cast<char>(std::tolower(static_cast<unsigned char>(letter)));
}

bool is_word(char letter) {
  return std::isalnum(static_cast<unsigned char>(letter)) || letter == '-' || letter == '_';
}

bool ends_with(std::string_view text, std::string_view name) {
  return text.size() >= name.size() && std::ranges::equal(text.substr(text.size() - name.size()), name, {}, lower);
}

// Where a value ends that begins there: with its bracket or its quote, or with the word.
size_t end_of_value(std::string_view line, size_t begin) {
  const char first = begin < line.size() ? line[begin] : ' ';
  const char last = first == '[' ? ']' : first == '"' || first == '\'' ? first : '\0';
  const size_t end = last != '\0' ? line.find(last, begin + 1) : line.npos;
  if (end != line.npos) return end + 1;
  return std::min(line.find_first_of(" \t\r\n,}", begin), line.size());
}

void mask_range(std::string& line, size_t begin, size_t end) {
  if (begin < end) line.replace(begin, end - begin, kMasked);
}

// "Bearer abc"
void mask_bearers(std::string& line) {
  constexpr std::string_view kBearer = "bearer ";
  for (size_t at = 0; at + kBearer.size() < line.size(); at++)
    if (ends_with(std::string_view(line).substr(0, at + kBearer.size()), kBearer))
      mask_range(line, at + kBearer.size(),
                 std::min(line.find_first_of(" \t\r\n\"',", at + kBearer.size()), line.size()));
}

// "http://me:password@host"
void mask_passwords_of_urls(std::string& line) {
  for (size_t at = line.find("://"); at != line.npos; at = line.find("://", at + 3)) {
    const size_t host = std::min(line.find_first_of("/ \t\r\n\"'", at + 3), line.size());
    const size_t colon = line.find(':', at + 3), sign = line.find('@', at + 3);
    if (colon < sign && sign < host) mask_range(line, colon + 1, sign);
  }
}

// "sk-0123456789", as OpenAI's keys begin
void mask_keys(std::string& line) {
  constexpr size_t kShortestKey = 8;
  for (size_t at = line.find("sk-"); at != line.npos; at = line.find("sk-", at + 3)) {
    if (at > 0 && is_word(line[at - 1])) continue;
    const auto end = std::find_if_not(line.begin() + static_cast<ptrdiff_t>(at) + 3, line.end(), is_word);
    const auto size = static_cast<size_t>(end - line.begin()) - at;
    if (size >= 3 + kShortestKey) mask_range(line, at, at + size);
  }
}

// "api-key: abc", "\"api_key\": \"abc\"", "HF_TOKEN=abc", "--api-key abc"
void mask_named(std::string& line) {
  for (size_t at = 0; at < line.size(); at++) {
    const char letter = line[at];
    if (letter != ':' && letter != '=' && letter != ' ') continue;
    std::string_view name = std::string_view(line).substr(0, at);
    while (name.ends_with(' ') && letter != ' ') name.remove_suffix(1);
    if (name.ends_with('"') || name.ends_with('\'')) name.remove_suffix(1);
    if (std::ranges::none_of(kNames, [&](std::string_view known) { return ends_with(name, known); })) continue;
    const auto not_of_name = std::find_if_not(name.rbegin(), name.rend(), is_word);
    const bool is_flag = name.substr(static_cast<size_t>(name.rend() - not_of_name)).starts_with("--");
    if (letter == ' ' && !is_flag) continue;
    const size_t begin = line.find_first_not_of(" \t", at + 1);
    if (begin != line.npos && line[begin] != '\n') mask_range(line, begin, end_of_value(line, begin));
  }
}

}  // namespace

bool is_secret_name(std::string_view name) {
  const size_t last = name.find_last_of("-_.");
  const std::string_view part = last == name.npos ? name : name.substr(last + 1);
  constexpr std::array<std::string_view, 10> kParts{"key",      "keys",      "secret", "secrets",       "token",
                                                    "password", "passwords", "passwd", "authorization", "credentials"};
  return std::ranges::any_of(
      kParts, [&](std::string_view known) { return part.size() == known.size() && ends_with(part, known); });
}

void Mask::add(std::string_view secret) {
  if (secret.size() < kShortest || std::ranges::find(secrets_, secret) != secrets_.end()) return;
  secrets_.emplace_back(secret);
  std::ranges::stable_sort(secrets_, std::greater(), &std::string::size);
}

std::string Mask::apply(std::string text) const {
  for (const std::string& secret : secrets_)
    for (size_t at = text.find(secret); at != text.npos; at = text.find(secret, at + kMasked.size()))
      text.replace(at, secret.size(), kMasked);
  std::string masked;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size() - 1) + 1;
    std::string line = text.substr(begin, end - begin);
    mask_bearers(line);
    mask_passwords_of_urls(line);
    mask_keys(line);
    mask_named(line);
    masked += line;
    begin = end;
  }
  return masked;
}

}  // namespace cachalot
