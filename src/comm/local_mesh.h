#pragma once

#include <memory>
#include <vector>

#include "base/error.h"
#include "comm/mesh.h"

namespace cachalot {

// The meshes of ranks that are threads of this process, connected through shared memory: for one rank alone, and for
// tests of many. `options` are every rank's, but for rank and size. ring_bytes 0: as for processes (comm/shm).
Result<std::vector<std::unique_ptr<Mesh>>> make_local_mesh(int num_ranks, const MeshOptions& options = {},
                                                           uint32_t ring_bytes = 0);

}  // namespace cachalot
