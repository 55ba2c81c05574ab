#include "comm/shm/greeting.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <random>
#include <utility>

#include "base/check.h"
#include "base/text.h"

namespace cachalot {
namespace {

constexpr size_t kNumFds = 5;

struct Address {
  sockaddr_un un{};
  socklen_t size = 0;
};

// Abstract: the name begins with a zero byte, lives in the network namespace, and goes with its socket.
Address abstract_address(const std::string& name) {
  Address address;
  CHECK(name.size() + 1 <= sizeof(address.un.sun_path));
  address.un.sun_family = AF_UNIX;
  std::memcpy(address.un.sun_path + 1, name.data(), name.size());
  address.size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
  return address;
}

Result<FileDescriptor> new_socket() {
  FileDescriptor socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket) return make_error(ErrorCode::kIo, "cannot make a unix socket: {}", std::strerror(errno));
  return socket;
}

// Anybody on the node may connect to an abstract name; only this user's processes are let in.
Status check_user(int socket) {
  ucred peer{};
  socklen_t size = sizeof(peer);
  if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0)
    return make_error(ErrorCode::kIo, "cannot tell the user at a unix socket's other end: {}", std::strerror(errno));
  if (peer.uid != geteuid())
    return make_error(ErrorCode::kInvalidArgument, "it runs as user {}, this rank as user {}", peer.uid, geteuid());
  return {};
}

// One packet and the descriptors beside it.
struct Packet {
  explicit Packet(Greeting& greeting) : bytes{.iov_base = &greeting, .iov_len = sizeof(greeting)} {
    header.msg_iov = &bytes;
    header.msg_iovlen = 1;
    header.msg_control = control;
    header.msg_controllen = CMSG_LEN(sizeof(int) * kNumFds);  // not one more has room, which CMSG_SPACE might give
  }

  iovec bytes;
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * kNumFds)] = {};
  msghdr header{};
};

}  // namespace

Status send_greeting(int socket, const Greeting& greeting, const GreetingFds& fds) {
  RETURN_IF_ERROR(check_user(socket));
  Greeting copy = greeting;
  Packet packet(copy);
  cmsghdr* control = CMSG_FIRSTHDR(&packet.header);
  control->cmsg_level = SOL_SOCKET;
  control->cmsg_type = SCM_RIGHTS;
  control->cmsg_len = CMSG_LEN(sizeof(int) * kNumFds);
  const std::array<int, kNumFds> numbers = {fds.memory, fds.event_fd, fds.board_fds[0], fds.board_fds[1], fds.pidfd};
  std::memcpy(CMSG_DATA(control), numbers.data(), sizeof(numbers));
  if (sendmsg(socket, &packet.header, MSG_NOSIGNAL) != static_cast<ssize_t>(sizeof(greeting)))
    return make_error(ErrorCode::kUnavailable, "cannot be greeted: {}", std::strerror(errno));
  return {};
}

Result<ReceivedGreeting> receive_greeting(int socket) {
  RETURN_IF_ERROR(check_user(socket));
  ReceivedGreeting received;
  Packet packet(received.greeting);
  const ssize_t size = recvmsg(socket, &packet.header, MSG_CMSG_CLOEXEC);
  if (size == 0) return make_error(ErrorCode::kUnavailable, "its process has ended or given up");
  if (size < 0) return make_error(ErrorCode::kUnavailable, "its greeting cannot be received: {}", std::strerror(errno));
  std::array<FileDescriptor*, kNumFds> fds = {&received.memory, &received.event_fd, &received.board_fds[0],
                                              &received.board_fds[1], &received.pidfd};
  const cmsghdr* control = CMSG_FIRSTHDR(&packet.header);
  const bool has_fds = control != nullptr && control->cmsg_level == SOL_SOCKET && control->cmsg_type == SCM_RIGHTS;
  const size_t num_fds = has_fds ? (control->cmsg_len - CMSG_LEN(0)) / sizeof(int) : 0;
  for (size_t idx = 0; idx < num_fds; idx++) {  // each is ours to close from here on; there is room for kNumFds
    int fd;
    std::memcpy(&fd, CMSG_DATA(control) + idx * sizeof(int), sizeof(fd));
    *fds[idx] = FileDescriptor(fd);
  }
  if (size != static_cast<ssize_t>(sizeof(Greeting)) || received.greeting.magic != SegmentHeader::kMagic ||
      num_fds != kNumFds)
    return make_error(ErrorCode::kCorrupt, "its {} bytes and {} file descriptors are no greeting", size, num_fds);
  return received;
}

std::string random_socket_name() {
  std::random_device random;
  return fmt::format("cachalot-{:08x}{:08x}{:08x}{:08x}", random(), random(), random(), random());
}

Result<FileDescriptor> listen_on(const std::string& name, int backlog) {
  ASSIGN_OR_RETURN(FileDescriptor socket, new_socket());
  const Address address = abstract_address(name);
  if (bind(socket.get(), reinterpret_cast<const sockaddr*>(&address.un), address.size) != 0 ||
      listen(socket.get(), backlog) != 0)
    return make_error(ErrorCode::kIo, "cannot listen on the abstract unix socket {}: {}", name, std::strerror(errno));
  return socket;
}

Result<FileDescriptor> connect_to(const std::string& name) {
  // A peer's word.
  if (name.size() >= sizeof(sockaddr_un::sun_path))
    return make_error(ErrorCode::kCorrupt, "{} is no name of a unix socket", quoted(name));
  ASSIGN_OR_RETURN(FileDescriptor socket, new_socket());
  const Address address = abstract_address(name);
  if (connect(socket.get(), reinterpret_cast<const sockaddr*>(&address.un), address.size) == 0) return socket;
  if (errno == EAGAIN) return make_error(ErrorCode::kUnavailable, "many are connecting");
  if (errno == ECONNREFUSED)
    return make_error(
        ErrorCode::kNotFound,
        "nobody listens on the abstract unix socket {}: its process has ended, or runs in another network "
        "namespace",
        quoted(name));
  return make_error(ErrorCode::kIo, "cannot connect to the abstract unix socket {}: {}", quoted(name),
                    std::strerror(errno));
}

}  // namespace cachalot
