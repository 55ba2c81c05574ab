#pragma once

#include "config/engine_options.h"
#include "scheduler/scheduler.h"

namespace cachalot {

// The scheduler of an engine whose KV cache has so many blocks and holds sequences of at most max_model_len tokens.
// Draws the key of its hashes.
SchedulerOptions make_scheduler_options(const EngineOptions& options, int num_blocks, int max_model_len);

}  // namespace cachalot
