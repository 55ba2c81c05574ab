#include <fmt/format.h>

#include <cstdio>

#include "base/stop_signals.h"
#include "cli/commands.h"
#include "config/end_report.h"

namespace cachalot {

void finish_command(const Status& status) {
  if (status) return;
  report_end(status.error());
  fmt::print(stderr, "cachalot: {}\n", status.error().message);
  throw CLI::RuntimeError(received_stop_signal() != 0 ? status_of_stop_signal() : 1);
}

}  // namespace cachalot
