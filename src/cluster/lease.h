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

// Runs until the program and all that it started have ended; gives the program's status, or 128 + the signal that ended
// it. SIGTERM and SIGINT go to the program. `longest_silence` 0: only the end of the input counts.
Result<int> run_leased(const std::vector<std::string>& words, std::chrono::seconds longest_silence);

}  // namespace cachalot
