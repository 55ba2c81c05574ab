#pragma once

#include <array>
#include <chrono>
#include <memory>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>

#include "base/error.h"
#include "base/file.h"
#include "comm/shm/shm_transport.h"

namespace cachalot {

// What two ranks of a node tell each other, once, over an abstract unix socket (SOCK_SEQPACKET): one packet each way,
// with file descriptors (SCM_RIGHTS). Descriptors mean the same in every container; a pid would not.
struct Greeting {
  uint64_t magic = SegmentHeader::kMagic;
  uint32_t version = SegmentHeader::kVersion;
  int32_t rank = -1;
  uint64_t epoch = 0;
  uint32_t ring = 0;  // of the sender's segment: where the receiver puts its messages
  uint32_t reserved = 0;
};

struct GreetingFds {
  int memory = -1;  // the segment
  int event_fd = -1;
  std::array<int, 2> board_fds{-1, -1};
  int pidfd = -1;  // of the sender
};

struct ReceivedGreeting {
  Greeting greeting;
  FileDescriptor memory, event_fd;
  std::array<FileDescriptor, 2> board_fds;
  FileDescriptor pidfd;
};

// `socket` is connected. Sends without waiting: one packet always has room.
Status send_greeting(int socket, const Greeting& greeting, const GreetingFds& fds);
// Takes a packet that has come. Errors: the other end is gone, runs as another user, or is no Cachalot.
Result<ReceivedGreeting> receive_greeting(int socket);

// Sockets by abstract name; all non-blocking.
std::string random_socket_name();
Result<FileDescriptor> listen_on(const std::string& name, int backlog);
// kNotFound: nobody listens there; kUnavailable: try again, as many are connecting at this moment.
Result<FileDescriptor> connect_to(const std::string& name);

struct ShmEndpointOptions {
  int rank = -1;
  uint64_t epoch = 0;
  uint32_t ring_bytes = 0;                     // a power of two of at least a page; 0: by the number of peers
  std::chrono::milliseconds deadline{10'000};  // of connect()
};

// How a peer on the node is found: its rank and its ShmEndpoint's address().
struct ShmAddress {
  int rank = -1;
  std::string address;
};

// A rank's way to shared memory with the other ranks of its node. create() on every rank, then the addresses travel
// (through the rendezvous), then connect() on every rank. Used by one thread.
class ShmEndpoint {
 public:
  // The error: this system does not let the process share memory.
  static Result<ShmEndpoint> create(ShmEndpointOptions options);

  // "user:[4026531837]:1000 cachalot-...": the user namespace and the user, who alone is let in, and a unix socket.
  std::string address() const;
  // Whether two ranks of a node, by their addresses (empty: it has none), let each other in.
  static bool may_share(std::string_view one, std::string_view other);

  // Before connect(): it may be decided when the address has travelled.
  void set_epoch(uint64_t epoch) { options_.epoch = epoch; }
  // Once. `peers` are all other ranks of the node (its own address among them is passed over). It waits until all have
  // connected, or gives an error that names the ranks at fault; then every peer that had connected finds out. stop:
  // nobody needs it any more.
  Result<std::unique_ptr<ShmTransport>> connect(std::span<const ShmAddress> peers, std::stop_token stop = {});

 private:
  ShmEndpoint(ShmEndpointOptions options, std::string socket_name, FileDescriptor listener)
      : options_(options), socket_name_(std::move(socket_name)), listener_(std::move(listener)) {}

  ShmEndpointOptions options_;
  std::string socket_name_;
  FileDescriptor listener_;
};

}  // namespace cachalot
