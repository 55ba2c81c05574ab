#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "base/error.h"
#include "base/file_descriptor.h"
#include "comm/shm/segment.h"

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

}  // namespace cachalot
