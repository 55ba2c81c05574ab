#pragma once

#include <string>

#include "base/error.h"
#include "cluster/run_folder.h"

namespace cachalot {

struct ReportOptions {
  std::string cluster;     // its name; empty: none is up, and the report is of this machine
  std::string run_folder;  // where clusters leave word
  std::string output;      // archive to write; empty: one with the time in its name, in this folder
};

// Gathers what a report of a fault needs into an archive, which is this user's alone, and without secrets; its path.
// What cannot be had is named in it.
Result<std::string> write_report(const RunFolder& folder, const ReportOptions& options);

}  // namespace cachalot
