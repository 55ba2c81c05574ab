#include "cli/flag_values.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <charconv>
#include <cmath>
#include <cstdlib>

#include "base/text.h"

namespace cachalot {
namespace {

// "k": thousands, "K": times 1024.
std::optional<int64_t> multiplier_of(char suffix) {
  const std::string_view decimal = "kmgt", binary = "KMGT";
  const size_t thousands = decimal.find(suffix), kibis = binary.find(suffix);
  int64_t multiplier = 1;
  if (kibis != binary.npos) return int64_t{1} << (10 * (kibis + 1));
  if (thousands == decimal.npos) return std::nullopt;
  for (size_t idx = 0; idx <= thousands; idx++) multiplier *= 1000;
  return multiplier;
}

// The flag as a person gave it, or the variable of the environment that stands in its place.
std::string source_of(const CLI::Option& option, const std::string& text) {
  const std::string name = option.get_lnames().empty() ? option.get_name() : "--" + option.get_lnames().front();
  const char* const variable = option.get_envname().empty() ? nullptr : std::getenv(option.get_envname().c_str());
  if (variable != nullptr && text == variable) return fmt::format("{} ({})", name, option.get_envname());
  return name;
}

[[noreturn]] void refuse(const CLI::Option& option, const std::string& text, const std::string& right) {
  throw CLI::ValidationError(fmt::format("{} {}: must be {}", source_of(option, text), cachalot::quoted(text), right));
}

}  // namespace

std::optional<int64_t> parse_whole_number(std::string_view text) {
  int64_t value = 0;
  const char* const end = text.data() + text.size();
  const auto [stopped, error] = std::from_chars(text.data(), end, value);
  if (error == std::errc() && stopped == end) return value;
  const std::optional<int64_t> multiplier = text.empty() ? std::nullopt : multiplier_of(text.back());
  if (!multiplier) return std::nullopt;
  text.remove_suffix(1);
  if (text.find_first_not_of("0123456789.") != text.npos) return std::nullopt;
  const std::optional<double> number = parse_real_number(text);
  const bool is_binary = *multiplier % 1000 != 0;
  if (!number || (is_binary && text.contains('.'))) return std::nullopt;
  const double product = *number * static_cast<double>(*multiplier);
  if (product > 9e18) return std::nullopt;
  return static_cast<int64_t>(product);
}

std::optional<double> parse_real_number(std::string_view text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(value)) return std::nullopt;
  return value;
}

namespace flag_values {

int64_t read_whole(const CLI::Option& option, const std::string& text, const WholeRange& range) {
  for (const auto& [word, value] : range.words) {
    if (word == text) return value;
  }
  const std::optional<int64_t> value = parse_whole_number(text);
  if (value && *value >= range.least && *value <= range.most) return *value;
  std::string right = range.most >= std::numeric_limits<int32_t>::max()
                          ? fmt::format("a whole number from {} on", range.least)
                          : fmt::format("a whole number from {} to {}", range.least, range.most);
  for (const auto& [word, meaning] : range.words) right += fmt::format(", or {}", word);
  refuse(option, text, right);
}

double read_real(const CLI::Option& option, const std::string& text, const RealRange& range) {
  const std::optional<double> value = parse_real_number(text);
  if (value && *value >= range.least && *value <= range.most) return *value;
  refuse(option, text,
         range.most == std::numeric_limits<double>::max()
             ? fmt::format("a number from {} on", range.least)
             : fmt::format("a number from {} to {}", range.least, range.most));
}

std::string default_text(double value) {
  return fmt::format("{}", value);
}

}  // namespace flag_values

CLI::Option* add_whole_list(CLI::App& app, const std::string& name, std::vector<int>& target, WholeRange range,
                            const std::string& help) {
  const auto self = std::make_shared<const CLI::Option*>();
  CLI::Option* option = app.add_option(
      name,
      [&target, self, range = std::move(range)](const CLI::results_t& results) {
        target.clear();
        for (const std::string& text : results)
          target.push_back(static_cast<int>(flag_values::read_whole(**self, text, range)));
        return true;
      },
      help);
  *self = option;
  return option->delimiter(',')->expected(1, -1)->type_name("N,...")->default_str(
      fmt::format("{}", fmt::join(target, ",")));
}

}  // namespace cachalot
