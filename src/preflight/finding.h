#pragma once

#include <string>
#include <vector>

namespace cachalot {

enum class Severity { kWarning, kError };

// Something that keeps a cluster from starting (an error) or from doing well (a warning), and what to do.
struct Finding {
  Severity severity = Severity::kError;
  std::string where;  // a node's address; empty: the cluster
  std::string what, advice;
};

class Findings {
 public:
  void error(std::string where, std::string what, std::string advice) {
    all_.push_back({Severity::kError, std::move(where), std::move(what), std::move(advice)});
  }
  void warning(std::string where, std::string what, std::string advice) {
    all_.push_back({Severity::kWarning, std::move(where), std::move(what), std::move(advice)});
  }
  const std::vector<Finding>& all() const { return all_; }
  int count(Severity severity) const {
    int number = 0;
    for (const Finding& finding : all_) number += finding.severity == severity;
    return number;
  }

 private:
  std::vector<Finding> all_;
};

}  // namespace cachalot
