#pragma once

#include <memory>
#include <vector>

#include "base/error.h"
#include "comm/shm/shm_transport.h"

namespace cachalot {

// Bytes of the ring between two ranks, where so many ranks share a node: 64 KiB to 1 MiB. It is a bound on what one
// message can leave behind while its receiver is busy, not on a message's length.
uint32_t default_ring_bytes(int num_local_ranks);

// The transports of ranks that are threads of this process, for tests: transport r connects rank r to all others.
Result<std::vector<std::unique_ptr<ShmTransport>>> make_local_shm(int num_ranks, uint32_t ring_bytes,
                                                                  uint64_t epoch = 1);

}  // namespace cachalot
