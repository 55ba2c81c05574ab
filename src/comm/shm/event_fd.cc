#include "comm/shm/event_fd.h"

#include <sys/eventfd.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace cachalot {

Result<FileDescriptor> make_event_fd() {
  FileDescriptor event_fd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!event_fd) return make_error(ErrorCode::kIo, "cannot make an eventfd: {}", std::strerror(errno));
  return event_fd;
}

Result<BoardFds> make_board_fds() {
  ASSIGN_OR_RETURN(FileDescriptor even, make_event_fd());
  ASSIGN_OR_RETURN(FileDescriptor odd, make_event_fd());
  return BoardFds{std::move(even), std::move(odd)};
}

}  // namespace cachalot
