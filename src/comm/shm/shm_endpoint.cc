#include "comm/shm/shm_endpoint.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <random>
#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "base/progress.h"
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

namespace {

using Clock = std::chrono::steady_clock;

constexpr int kLongestSleep = 20;  // milliseconds, until a stop is seen

// Between two ranks the higher one connects and greets, the lower one accepts and greets back. Nobody waits for one
// certain peer, so the order in which ranks come does not matter.
class Handshake {
 public:
  Handshake(const ShmEndpointOptions& options, int listener, const GreetingFds& fds, std::span<const ShmAddress> peers,
            std::stop_token stop)
      : options_(options), listener_(listener), fds_(fds), stop_(std::move(stop)) {
    for (const ShmAddress& address : peers)
      peers_.push_back({.address = address, .ring = static_cast<uint32_t>(peers_.size())});
  }

  Status run() {
    const Clock::time_point deadline = Clock::now() + options_.deadline;
    while (!all_connected()) {
      if (Clock::now() >= deadline) return missed_deadline();
      if (stop_.stop_requested()) return make_error(ErrorCode::kCancelled, "shared memory: it is not needed any more");
      RETURN_IF_ERROR(call_peers());
      if (!all_connected()) RETURN_IF_ERROR(hear_peers(deadline));
    }
    return {};
  }

  std::vector<ShmPeer> take_connected() { return std::move(connected_); }

 private:
  struct Peer {
    ShmAddress address;
    uint32_t ring = 0;  // of this rank's segment, for what it sends
    FileDescriptor socket = {};
    bool connected = false;
  };

  bool all_connected() const { return connected_.size() == peers_.size(); }

  std::unexpected<Error> fault(int rank, const Error& error) const {
    return make_error(error.code, "shared memory with rank {}: {}", rank, error.message);
  }

  Status missed_deadline() const {
    std::string missing;
    for (const Peer& peer : peers_)
      if (!peer.connected) missing += fmt::format("{}{}", missing.empty() ? "" : ", ", peer.address.rank);
    return make_error(ErrorCode::kDeadlineExceeded, "shared memory: rank {} waited {} ms for ranks {}", options_.rank,
                      options_.deadline.count(), missing);
  }

  Status greet(int socket, const Peer& peer) const {
    const Greeting greeting{.rank = options_.rank, .epoch = options_.epoch, .ring = peer.ring};
    if (const Status status = send_greeting(socket, greeting, fds_); !status)
      return fault(peer.address.rank, status.error());
    return {};
  }

  // Connects to the lower ranks, as far as that is not done.
  Status call_peers() {
    for (Peer& peer : peers_) {
      if (peer.address.rank > options_.rank || peer.socket || peer.connected) continue;
      Result<FileDescriptor> socket = connect_to(peer.address.address.substr(peer.address.address.find(' ') + 1));
      if (!socket && socket.error().code == ErrorCode::kUnavailable) continue;
      if (!socket) return fault(peer.address.rank, socket.error());
      RETURN_IF_ERROR(greet(socket->get(), peer));
      peer.socket = std::move(*socket);
    }
    return {};
  }

  // Waits a little for what peers say, and takes it.
  Status hear_peers(Clock::time_point deadline) {
    std::vector<pollfd> polled = {{.fd = listener_, .events = POLLIN}};
    for (const FileDescriptor& caller : callers_) polled.push_back({.fd = caller.get(), .events = POLLIN});
    const size_t first_peer = polled.size();
    for (const Peer& peer : peers_) polled.push_back({.fd = peer.socket.get(), .events = POLLIN});  // -1 is passed over
    // Peers whose backlog was full are called again soon.
    const bool must_call = std::ranges::any_of(
        peers_, [&](const Peer& peer) { return peer.address.rank < options_.rank && !peer.socket && !peer.connected; });
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
    poll(polled.data(), polled.size(), static_cast<int>(std::clamp<int64_t>(left, 0, must_call ? 1 : kLongestSleep)));

    for (size_t idx = 0; idx < peers_.size(); idx++) {
      if (polled[first_peer + idx].revents == 0) continue;
      Result<ReceivedGreeting> received = receive_greeting(peers_[idx].socket.get());
      if (!received) return fault(peers_[idx].address.rank, received.error());
      RETURN_IF_ERROR(connect(peers_[idx], std::move(*received)));
    }
    for (size_t idx = first_peer - 1; idx > 0; idx--)  // from the back, as callers leave the list
      if (polled[idx].revents != 0) RETURN_IF_ERROR(take_call(idx - 1));
    while (polled[0].revents != 0) {
      FileDescriptor caller(accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
      if (!caller) break;
      callers_.push_back(std::move(caller));
    }
    return {};
  }

  void send_away(const std::string& why) {
    const auto line = sent_away_.add(Clock::now(), "shared memory: a caller is sent away: " + why);
    if (line) log::warn("{}", *line);
  }

  // A caller has said who it is. Strangers are sent away: anyone on the node may call.
  Status take_call(size_t caller_idx) {
    const FileDescriptor socket = std::move(callers_[caller_idx]);
    callers_.erase(callers_.begin() + static_cast<std::ptrdiff_t>(caller_idx));
    Result<ReceivedGreeting> received = receive_greeting(socket.get());
    if (!received) {
      send_away(received.error().message);
      return {};
    }
    const int rank = received->greeting.rank;
    const auto peer = std::ranges::find(peers_, rank, [](const Peer& peer) { return peer.address.rank; });
    if (peer == peers_.end() || rank < options_.rank || peer->connected) {
      send_away(fmt::format("rank {} is {}", rank,
                            peer == peers_.end() ? "no peer of this node" : "not to call, or has called"));
      return {};
    }
    RETURN_IF_ERROR(greet(socket.get(), *peer));  // a wrong version too: so both sides know
    return connect(*peer, std::move(*received));
  }

  Status connect(Peer& peer, ReceivedGreeting received) {
    const Greeting& greeting = received.greeting;
    const int rank = peer.address.rank;
    if (greeting.version != SegmentHeader::kVersion)
      return make_error(
          ErrorCode::kUnsupported,
          "shared memory with rank {}: it speaks version {}, this rank version {}: all ranks must be of the "
          "same build",
          rank, greeting.version, SegmentHeader::kVersion);
    if (greeting.rank != rank || greeting.epoch != options_.epoch)
      return make_error(ErrorCode::kInvalidArgument,
                        "shared memory with rank {}: rank {} of epoch {} answers, in this rank's epoch {}", rank,
                        greeting.rank, greeting.epoch, options_.epoch);
    ASSIGN_OR_RETURN(Segment segment, Segment::open(std::move(received.memory), rank, options_.epoch));
    if (greeting.ring >= segment.layout().num_rings())
      return make_error(ErrorCode::kCorrupt, "shared memory with rank {}: it offers ring {} of {}", rank, greeting.ring,
                        segment.layout().num_rings());
    connected_.push_back({.rank = rank,
                          .incoming_ring = peer.ring,
                          .outgoing_ring = greeting.ring,
                          .segment = std::move(segment),
                          .event_fd = std::move(received.event_fd),
                          .board_fds = std::move(received.board_fds),
                          .pidfd = std::move(received.pidfd)});
    peer.connected = true;
    peer.socket.reset();  // what was sent stays readable
    return {};
  }

  const ShmEndpointOptions& options_;
  int listener_;
  GreetingFds fds_;
  std::stop_token stop_;
  std::vector<Peer> peers_;
  std::vector<FileDescriptor> callers_;  // who have not said yet who they are
  std::vector<ShmPeer> connected_;
  Complaints sent_away_;
};

Result<FileDescriptor> pidfd_of_this_process() {
  // The call itself: glibc 2.36 declares its wrapper without extern "C".
  FileDescriptor pidfd(static_cast<int>(syscall(SYS_pidfd_open, getpid(), 0)));
  if (!pidfd) return make_error(ErrorCode::kIo, "cannot make a pidfd of this process: {}", std::strerror(errno));
  return pidfd;
}

}  // namespace

Result<ShmEndpoint> ShmEndpoint::create(ShmEndpointOptions options) {
  CHECK(options.rank >= 0);
  // What connect() makes is tried here, where there may still be another way.
  RETURN_IF_ERROR(Segment::create(options.rank, options.epoch, {1, SegmentLayout::kPage, SegmentLayout::kPage}));
  RETURN_IF_ERROR(pidfd_of_this_process());
  std::string name = random_socket_name();
  constexpr int kBacklog = 1024;  // all ranks of a node may call before this one answers
  ASSIGN_OR_RETURN(FileDescriptor listener, listen_on(name, kBacklog));
  return ShmEndpoint(options, std::move(name), std::move(listener));
}

std::string ShmEndpoint::address() const {
  std::array<char, 64> user_namespace{};  // empty where /proc does not tell
  [[maybe_unused]] const ssize_t size =
      readlink("/proc/self/ns/user", user_namespace.data(), user_namespace.size() - 1);
  return fmt::format("{}:{} {}", user_namespace.data(), geteuid(), socket_name_);
}

bool ShmEndpoint::may_share(std::string_view one, std::string_view other) {
  return !one.empty() && one.substr(0, one.find(' ')) == other.substr(0, other.find(' '));
}

Result<std::unique_ptr<ShmTransport>> ShmEndpoint::connect(std::span<const ShmAddress> addresses,
                                                           std::stop_token stop) {
  CHECK(listener_, "connect() is called once");
  const FileDescriptor listener = std::move(listener_);
  std::vector<ShmAddress> peers(addresses.begin(), addresses.end());
  std::erase_if(peers, [&](const ShmAddress& address) { return address.rank == options_.rank; });

  const SegmentLayout layout = SegmentLayout::of_node(static_cast<int>(peers.size()), options_.ring_bytes);
  ASSIGN_OR_RETURN(Segment segment, Segment::create(options_.rank, options_.epoch, layout));
  ASSIGN_OR_RETURN(FileDescriptor event_fd, make_event_fd());
  ASSIGN_OR_RETURN(BoardFds board_fds, make_board_fds());
  ASSIGN_OR_RETURN(const FileDescriptor own_process, pidfd_of_this_process());

  Handshake handshake(options_, listener.get(),
                      {.memory = segment.memory_fd(),
                       .event_fd = event_fd.get(),
                       .board_fds = {board_fds[0].get(), board_fds[1].get()},
                       .pidfd = own_process.get()},
                      peers, std::move(stop));
  const Status status = handshake.run();
  auto transport = std::make_unique<ShmTransport>(std::move(segment), std::move(event_fd), std::move(board_fds),
                                                  handshake.take_connected(), options_.epoch);
  if (!status) return std::unexpected(status.error());  // the transport closes: those who connected find out
  return transport;
}

}  // namespace cachalot
