#pragma once

#include "base/error.h"
#include "comm/shm/shm_transport.h"

namespace cachalot {

// What ranks of a node wake each other with. The error: the system gives no more descriptors.
Result<FileDescriptor> make_event_fd();
Result<BoardFds> make_board_fds();

}  // namespace cachalot
