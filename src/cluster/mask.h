#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace cachalot {

// Takes secrets out of a text that may be shown to others: those that are known, wherever they stand, and what stands
// where a key, a secret, a token or a password usually does.
class Mask {
 public:
  // Nothing shorter than kShortest is taken for a secret: it would be found everywhere.
  static constexpr size_t kShortest = 4;
  void add(std::string_view secret);

  std::string apply(std::string text) const;

 private:
  std::vector<std::string> secrets_;  // the longest first
};

// Whether a flag, key or variable of that name holds a secret: "api-key", "OPENAI_API_KEY", "hf_token"; not
// "max-num-batched-tokens", nor "group-secret-file", which holds a path.
bool is_secret_name(std::string_view name);

}  // namespace cachalot
