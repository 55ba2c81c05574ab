#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace cachalot {

// Modules as compressed-tensors' lists name them: by "re:" and a regular expression of Python's, which is matched from
// the start of the name and need not reach its end, by their exact name, or by their class. Immutable.
class ModulePatterns {
 public:
  ModulePatterns() = default;
  static Result<ModulePatterns> compile(const std::vector<std::string>& patterns);

  bool match(std::string_view name, std::string_view class_name) const;

 private:
  struct Expressions;
  std::vector<std::string> names_;
  std::shared_ptr<const Expressions> expressions_;  // none is null
};

}  // namespace cachalot
