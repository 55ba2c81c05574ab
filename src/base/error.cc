#include "base/error.h"

#include <cstdio>
#include <cstdlib>

namespace cachalot {

void check_failed(const char* file, int line, std::string_view condition, std::string_view message) {
  fmt::print(stderr, "{}:{}: check failed: {}{}{}\n", file, line, condition, message.empty() ? "" : ": ", message);
  std::fflush(stderr);
  std::abort();
}

}  // namespace cachalot
