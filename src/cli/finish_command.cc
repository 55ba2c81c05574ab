#include <fmt/format.h>

#include <cstdio>

#include "cli/commands.h"

namespace cachalot {

void finish_command(const Status& status) {
  if (status) return;
  fmt::print(stderr, "cachalot: {}\n", status.error().message);
  throw CLI::RuntimeError(1);
}

}  // namespace cachalot
