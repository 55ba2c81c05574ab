#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/error.h"

// How a process ended, as data for whoever started it: a process tells its last error, and what holds it (`cachalot
// lease`, on its node) adds what the system says. Nobody looks for it in a log.
//
//   {"version": 1, "status": 1, "out_of_memory": false, "code": "not_found", "message": "m/config.json: cannot open"}
//
// Without "code" and "message" where the process said nothing.
namespace cachalot {

std::string_view name_of(ErrorCode code);  // "out_of_memory"
std::optional<ErrorCode> error_code_named(std::string_view name);

struct EndReport {
  int status = 0;              // 128 + the signal that ended it, if one did
  bool out_of_memory = false;  // the system ended it for want of memory
  std::optional<Error> error;  // its own

  // "ended with status 1: m/config.json: cannot open"
  std::string text() const;
};

std::string to_json(const EndReport& report);
// Of another process, which is not trusted: of the last line that is one. Nothing: none is.
std::optional<EndReport> parse_end_report(std::string_view text);
// Of a process that has ended, and that was given `fd` to say why: with what the system says.
EndReport read_end_report(int fd, int status, uint64_t memory_kills_before);

// --- In the process that reports.

// By main(): takes the descriptor that whoever started this process gave it (kEndReportVariable); its own children get
// none.
inline constexpr const char* kEndReportVariable = "CACHALOT_END_FD";
void take_end_report();
// The error that this process ends with; nothing where nobody asked for it.
void report_end(const Error& error);

}  // namespace cachalot
