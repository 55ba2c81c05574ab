#include "config/module_patterns.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/regex.hpp>

#include "base/text.h"

namespace cachalot {
namespace {

// Python's notation in Boost's, where named groups are spelled otherwise, {,n} needs its zero and \Z is \z; flags that
// speak of letters (a, L, u) say nothing of names, and escaped quotes and angles, or a bracket in a set, are
// themselves.
std::string from_python(std::string_view rest) {
  std::string text;
  bool in_set = false;
  const auto take = [&](size_t count, std::string_view as) {
    text += as;
    rest.remove_prefix(std::min(count, rest.size()));
  };
  while (!rest.empty()) {
    const std::string_view two = rest.substr(0, 2), one = two.substr(0, 1);
    const size_t flags_end = two == "(?" ? rest.find_first_not_of("aiLmsux", 2) : std::string_view::npos;
    if (one == "\\" && two.size() == 2) {
      const bool is_itself = std::string_view("<>'`").contains(two[1]);
      take(2, two == "\\Z" ? "\\z" : is_itself ? two.substr(1) : two);
    } else if (in_set) {
      in_set = one != "]";
      take(1, one == "[" ? "\\[" : one);
    } else if (one == "[") {
      in_set = true;
      size_t begin = two == "[^" ? 2 : 1;
      if (rest.substr(begin).starts_with(']')) begin++;  // as the first it closes nothing
      take(begin, rest.substr(0, begin));
    } else if (rest.starts_with("(?P<")) {
      take(4, "(?<");
    } else if (rest.starts_with("(?P=")) {
      const size_t end = rest.find(')');
      take(end == rest.npos ? end : end + 1, fmt::format("\\k<{}>", rest.substr(4, end - 4)));
    } else if (two == "{,") {
      take(2, "{0,");
    } else if (flags_end != rest.npos && flags_end > 2 && std::string_view("):-").contains(rest[flags_end])) {
      std::string flags(rest.substr(2, flags_end - 2));
      std::erase_if(flags, [](char flag) { return flag == 'a' || flag == 'L' || flag == 'u'; });
      const bool is_nothing = flags.empty() && rest[flags_end] == ')';
      take(is_nothing ? flags_end + 1 : flags_end, is_nothing ? "" : "(?" + flags);
    } else {
      take(1, one);
    }
  }
  return text;
}

}  // namespace

struct ModulePatterns::Expressions {
  std::vector<boost::regex> list;
};

Result<ModulePatterns> ModulePatterns::compile(const std::vector<std::string>& patterns) {
  constexpr std::string_view kExpression = "re:";
  ModulePatterns compiled;
  auto expressions = std::make_shared<Expressions>();
  for (const std::string& pattern : patterns) {
    if (!pattern.starts_with(kExpression)) {
      compiled.names_.push_back(pattern);
      continue;
    }
    boost::regex expression;
    try {
      expression.assign(from_python(std::string_view(pattern).substr(kExpression.size())));
      boost::regex_search(std::string("model.layers.0.mlp.gate"), expression, boost::match_continuous);
    } catch (const std::exception&) {  // no expression, or one that takes too long
      return make_error(ErrorCode::kInvalidArgument, "{}", quoted(pattern, 100));
    }
    expressions->list.push_back(std::move(expression));
  }
  compiled.expressions_ = std::move(expressions);
  return compiled;
}

bool ModulePatterns::match(std::string_view name, std::string_view class_name) const {
  if (std::ranges::any_of(names_, [&](const std::string& other) { return other == name || other == class_name; }))
    return true;
  return expressions_ && std::ranges::any_of(expressions_->list, [&](const boost::regex& expression) {
           try {
             return boost::regex_search(name.begin(), name.end(), expression, boost::match_continuous);
           } catch (const std::exception&) {
             return false;
           }
         });
}

}  // namespace cachalot
