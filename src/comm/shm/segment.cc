#include "comm/shm/segment.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <new>
#include <random>
#include <utility>

#include "base/error.h"
#include "base/text.h"

namespace cachalot {

void Bell::prepare(const RingSet& posted, const RingSet& awaited, bool any) {
  any_.store(any ? 1 : 0, std::memory_order_relaxed);  // read by who has seen a bit of awaited_
  sleeping_.store(1);
  for (size_t word = 0; word < RingSet::kWords; word++) {
    // Both are empty between sleeps: most words stay so.
    if (posted.words[word] != 0) posted_[word].store(posted.words[word]);
    if (awaited.words[word] != 0) awaited_[word].store(awaited.words[word]);
  }
}

bool Bell::end() {
  const bool woken = sleeping_.exchange(0) == 0;
  // A peer that clears its bit afterwards finds it cleared.
  for (auto& word : awaited_) word.store(0, std::memory_order_relaxed);
  for (auto& word : posted_) word.store(0, std::memory_order_relaxed);
  return woken;
}

void Bell::tell_published(uint32_t ring, int event_fd) {
  auto& word = awaited_[RingSet::word_of(ring)];
  const uint64_t bit = RingSet::bit_of(ring);
  if ((word.load() & bit) == 0 || (word.fetch_and(~bit) & bit) == 0) return;
  // Of two peers that clear the last bits of two words, at least one sees that all are clear.
  if (any_.load(std::memory_order_relaxed) != 0 ||
      std::ranges::all_of(awaited_, [](const auto& other) { return other.load() == 0; }))
    wake(event_fd);
}

void Bell::tell_closed(int event_fd) {
  num_closed_.fetch_add(1);
  wake(event_fd);
}

void Bell::wake(int event_fd) {
  if (sleeping_.load() == 0 || sleeping_.exchange(0) == 0) return;
  const uint64_t one = 1;
  // An eventfd takes any number of ones; and whoever waits has a deadline.
  [[maybe_unused]] const ssize_t written = write(event_fd, &one, sizeof(one));
}

namespace {

Result<std::byte*> map(int fd, size_t size) {
  void* base = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (base == MAP_FAILED)
    return make_error(ErrorCode::kOutOfMemory, "shared memory: cannot map {} bytes: {}", size, std::strerror(errno));
  return static_cast<std::byte*>(base);
}

}  // namespace

SegmentLayout SegmentLayout::of_node(int num_peers, uint32_t ring_bytes) {
  constexpr uint32_t kRings = 8 << 20, kMinRing = 64 << 10, kMaxRing = 1 << 20;
  // Of more than half a MiB, messages, whose ends copy at the same time, are faster than slots.
  constexpr uint32_t kSlots = 32 << 20, kMinSlot = 64 << 10, kMaxSlot = 512 << 10;
  const auto num_ranks = static_cast<uint32_t>(num_peers) + 1;
  if (ring_bytes == 0) ring_bytes = std::bit_floor(std::clamp(kRings / num_ranks, kMinRing, kMaxRing));
  const uint32_t slot_bytes = std::bit_floor(std::clamp(kSlots / num_ranks, kMinSlot, kMaxSlot));
  return {static_cast<uint32_t>(num_peers), ring_bytes, slot_bytes + kPage};  // the note stands before the bytes
}

bool SegmentLayout::is_valid() const {
  return num_rings_ <= RingSet::kMaxRings && std::has_single_bit(ring_bytes_) && ring_bytes_ >= kPage &&
         slot_bytes_ >= kPage && slot_bytes_ % kPage == 0;
}

Result<Segment> Segment::create(int rank, uint64_t epoch, SegmentLayout layout) {
  if (layout.num_rings() > RingSet::kMaxRings)
    return make_error(ErrorCode::kUnsupported, "shared memory: {} ranks on a node, at most {}", layout.num_rings() + 1,
                      RingSet::kMaxRings + 1);
  CHECK(layout.is_valid());
  FileDescriptor memory(memfd_create("cachalot-rank", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  // Sealed: a peer that shrank it would make this rank's next access a SIGBUS.
  if (!memory || ftruncate(memory.get(), static_cast<off_t>(layout.size())) != 0 ||
      fcntl(memory.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
    return make_error(ErrorCode::kIo, "shared memory: cannot make {} bytes (memfd): {}", layout.size(),
                      std::strerror(errno));
  ASSIGN_OR_RETURN(std::byte * base, map(memory.get(), layout.size()));
  new (base) SegmentHeader{.rank = rank,
                           .epoch = epoch,
                           .num_rings = layout.num_rings(),
                           .ring_bytes = layout.ring_bytes(),
                           .slot_bytes = layout.slot_bytes()};
  return Segment(std::move(memory), rank, base, layout);
}

Result<Segment> Segment::open(FileDescriptor memory, int rank, uint64_t epoch) {
  struct stat stat{};
  SegmentHeader header;
  if (fstat(memory.get(), &stat) != 0 || pread(memory.get(), &header, sizeof(header), 0) != sizeof(header))
    return make_error(ErrorCode::kIo, "shared memory of rank {}: cannot be read: {}", rank, std::strerror(errno));
  if (header.magic != SegmentHeader::kMagic || header.version != SegmentHeader::kVersion)
    return make_error(ErrorCode::kCorrupt,
                      "shared memory of rank {}: its format is {:x} version {}, this rank's {:x} version {}", rank,
                      header.magic, header.version, SegmentHeader::kMagic, SegmentHeader::kVersion);
  if (header.rank != rank || header.epoch != epoch)
    return make_error(ErrorCode::kCorrupt, "shared memory of rank {}: it is rank {}'s of epoch {}, wanted is epoch {}",
                      rank, header.rank, header.epoch, epoch);
  const SegmentLayout layout(header.num_rings, header.ring_bytes, header.slot_bytes);
  const int seals = fcntl(memory.get(), F_GET_SEALS);
  if (!layout.is_valid() || layout.size() != static_cast<size_t>(stat.st_size) || seals < 0 ||
      (seals & F_SEAL_SHRINK) == 0)
    return make_error(ErrorCode::kCorrupt,
                      "shared memory of rank {}: {} rings of {} bytes and slots of {} do not make its {} sealed bytes",
                      rank, header.num_rings, header.ring_bytes, header.slot_bytes, stat.st_size);
  ASSIGN_OR_RETURN(std::byte * base, map(memory.get(), layout.size()));
  return Segment(std::move(memory), rank, base, layout);
}

Segment::Segment(Segment&& other) noexcept
    : memory_(std::move(other.memory_)),
      rank_(other.rank_),
      base_(std::exchange(other.base_, nullptr)),
      layout_(other.layout_) {}

Segment::~Segment() {
  if (base_ != nullptr) munmap(base_, layout_.size());
}

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
