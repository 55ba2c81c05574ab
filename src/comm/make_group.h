#pragma once

#include <memory>

#include "comm/mesh_group.h"

namespace cachalot {

// Collectives among ranks of a mesh, which is borrowed, by the way that suits them: the board of three or more ranks of
// one node (comm/board_group.h), else messages (comm/mesh_group.h). A rank's first such group has the board; ranks make
// their groups in the same order. The error: memory.
Result<std::unique_ptr<Group>> make_group(Mesh& mesh, MeshGroupOptions options);

}  // namespace cachalot
