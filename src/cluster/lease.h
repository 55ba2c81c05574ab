#pragma once

#include <chrono>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace cachalot {

// A program that runs on a node for as long as somebody elsewhere wants it to: `cachalot lease`, started there through
// ssh or srun, starts it and reads its own standard input. Each byte renews the lease; the end of the input, or
// silence, ends it, and with it the program and whatever it has started, also what is stopped. So nothing goes on
// behind a connection that broke.
inline constexpr std::string_view kRenewLease = "\n";
inline constexpr std::string_view kTerminateLease = "t";  // sends the program SIGTERM
inline constexpr std::string_view kKillLease = "k";       // ends everything at once

struct LeaseOptions {
  std::vector<std::string> words;           // the program and its arguments
  std::chrono::seconds longest_silence{0};  // 0: only the end of the input counts
  // At the end a line on the standard output tells how the program ended (config/end_report.h); what the program itself
  // writes there goes to the errors.
  bool report_end = false;
};

// Runs until the program and all that it started have ended; gives the program's status, or 128 + the signal that ended
// it. SIGTERM and SIGINT go to the program.
Result<int> run_leased(const LeaseOptions& options);

}  // namespace cachalot
