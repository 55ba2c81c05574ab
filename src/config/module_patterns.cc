#include "config/module_patterns.h"

#include <algorithm>
#include <boost/regex.hpp>

#include "base/text.h"

namespace cachalot {

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
      expression.assign(pattern.substr(kExpression.size()));
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
