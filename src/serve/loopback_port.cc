#include "serve/loopback_port.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>

#include "base/file_descriptor.h"

namespace cachalot {

Result<uint16_t> free_loopback_port() {
  const FileDescriptor socket_fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  if (!socket_fd || bind(socket_fd.get(), reinterpret_cast<const sockaddr*>(&address), size) != 0 ||
      getsockname(socket_fd.get(), reinterpret_cast<sockaddr*>(&address), &size) != 0)
    return make_error(ErrorCode::kIo, "no free port on 127.0.0.1: {}", std::strerror(errno));
  return ntohs(address.sin_port);
}

}  // namespace cachalot
