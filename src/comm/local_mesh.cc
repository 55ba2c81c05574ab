#include "comm/local_mesh.h"

#include <utility>

#include "comm/shm/local_shm.h"

namespace cachalot {

Result<std::vector<std::unique_ptr<Mesh>>> make_local_mesh(int num_ranks, const MeshOptions& options,
                                                           uint32_t ring_bytes) {
  ASSIGN_OR_RETURN(auto transports, make_local_shm(num_ranks, ring_bytes));
  std::vector<std::unique_ptr<Mesh>> meshes;
  for (int rank = 0; rank < num_ranks; rank++) {
    MeshOptions own = options;
    own.rank = rank;
    own.size = num_ranks;
    std::vector<std::unique_ptr<Transport>> own_transports;
    if (num_ranks > 1) own_transports.push_back(std::move(transports[rank]));
    ASSIGN_OR_RETURN(auto mesh, Mesh::create(std::move(own), std::move(own_transports)));
    meshes.push_back(std::move(mesh));
  }
  return meshes;
}

}  // namespace cachalot
