#pragma once

#include <string>
#include <utility>
#include <vector>

#include "config/engine_options.h"
#include "config/parallel_options.h"

namespace cachalot {

// The settings that must be equal on all ranks of a group, as flags and values. What concerns one process alone (its
// address, threads, devices, seed, share of memory) is not among them.
std::vector<std::pair<std::string, std::string>> group_settings(const EngineOptions& engine,
                                                                const ParallelOptions& parallel);

}  // namespace cachalot
