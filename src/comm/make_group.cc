#include "comm/make_group.h"

#include <utility>

#include "comm/board_group.h"

namespace cachalot {

Result<std::unique_ptr<Group>> make_group(Mesh& mesh, MeshGroupOptions options) {
  // Between two ranks a message is one wake-up too, and goes without a common counter.
  const bool is_small = options.members.size() <= 2;
  std::unique_ptr<Board> board = is_small ? nullptr : mesh.make_board(options.members);
  ASSIGN_OR_RETURN(std::unique_ptr<Group> messages, MeshGroup::create(mesh, std::move(options)));
  if (!board) return messages;
  return std::make_unique<BoardGroup>(mesh, std::move(board), std::move(messages));
}

}  // namespace cachalot
