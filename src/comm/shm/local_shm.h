#pragma once

#include <memory>
#include <vector>

#include "base/error.h"
#include "comm/shm/shm_transport.h"

namespace cachalot {

// The transports of ranks that are threads of this process, for tests: transport r connects rank r to all others.
// ring_bytes 0: as for processes.
Result<std::vector<std::unique_ptr<ShmTransport>>> make_local_shm(int num_ranks, uint32_t ring_bytes = 0,
                                                                  uint64_t epoch = 1);

}  // namespace cachalot
