#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "base/error.h"
#include "cluster/run_folder.h"
#include "config/cluster_file.h"

namespace cachalot {

// Where clusters that are up leave word; the same for `up`, `down` and `status`.
void add_run_folder_flag(CLI::App& app, std::string& run_folder);
// What the commands of a person who typed this one need in order to find the same folder: " --run-folder X", or
// nothing.
std::string run_folder_words(const std::string& run_folder);

// The sections `serve` and `router` hold flags that those commands know, with values that they take; else the error
// names file, line and key.
Status check_cluster_flags(const ClusterFile& cluster);

// The name of the cluster that is meant: that of a cluster file, a name as it is, or the only one that is up.
Result<std::string> find_cluster_name(const RunFolder& folder, const std::string& file_or_name);

}  // namespace cachalot
