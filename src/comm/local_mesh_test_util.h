#pragma once

#include <fcntl.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "base/error.h"
#include "comm/mesh.h"
#include "comm/shm/shm_transport.h"

// Ranks that are threads of one process.
namespace cachalot {

inline Result<FileDescriptor> duplicate(int fd) {
  FileDescriptor copy(fcntl(fd, F_DUPFD_CLOEXEC, 0));
  if (!copy) return make_error(ErrorCode::kIo, "cannot duplicate a file descriptor: {}", std::strerror(errno));
  return copy;
}

// Transport r connects rank r to all others. ring_bytes 0: as for processes.
inline Result<std::vector<std::unique_ptr<ShmTransport>>> make_local_shm(int num_ranks, uint32_t ring_bytes = 0,
                                                                         uint64_t epoch = 1) {
  const SegmentLayout of_node = SegmentLayout::of_node(num_ranks - 1, ring_bytes);
  // Ring r of a segment is what rank r sends; a rank's own is never touched.
  const SegmentLayout layout(static_cast<uint32_t>(num_ranks), of_node.ring_bytes(), of_node.slot_bytes());
  std::vector<Segment> segments;
  std::vector<FileDescriptor> event_fds;
  std::vector<BoardFds> board_fds;
  for (int rank = 0; rank < num_ranks; rank++) {
    ASSIGN_OR_RETURN(Segment segment, Segment::create(rank, epoch, layout));
    segments.push_back(std::move(segment));
    ASSIGN_OR_RETURN(event_fds.emplace_back(), make_event_fd());
    ASSIGN_OR_RETURN(board_fds.emplace_back(), make_board_fds());
  }
  std::vector<std::vector<ShmPeer>> peers(num_ranks);
  for (int rank = 0; rank < num_ranks; rank++) {
    for (int peer = 0; peer < num_ranks; peer++) {
      if (peer == rank) continue;
      ASSIGN_OR_RETURN(FileDescriptor memory, duplicate(segments[peer].memory_fd()));
      ASSIGN_OR_RETURN(Segment segment, Segment::open(std::move(memory), peer, epoch));
      ASSIGN_OR_RETURN(FileDescriptor event_fd, duplicate(event_fds[peer].get()));
      ASSIGN_OR_RETURN(FileDescriptor even, duplicate(board_fds[peer][0].get()));
      ASSIGN_OR_RETURN(FileDescriptor odd, duplicate(board_fds[peer][1].get()));
      peers[rank].push_back({.rank = peer,
                             .incoming_ring = static_cast<uint32_t>(peer),
                             .outgoing_ring = static_cast<uint32_t>(rank),
                             .segment = std::move(segment),
                             .event_fd = std::move(event_fd),
                             .board_fds = {std::move(even), std::move(odd)}});
    }
  }
  std::vector<std::unique_ptr<ShmTransport>> transports;
  for (int rank = 0; rank < num_ranks; rank++) {
    transports.push_back(std::make_unique<ShmTransport>(std::move(segments[rank]), std::move(event_fds[rank]),
                                                        std::move(board_fds[rank]), std::move(peers[rank]), epoch));
  }
  return transports;
}

// Meshes connected through shared memory. `options` are every rank's, but for rank and size.
inline Result<std::vector<std::unique_ptr<Mesh>>> make_local_mesh(int num_ranks, const MeshOptions& options = {},
                                                                  uint32_t ring_bytes = 0) {
  ASSIGN_OR_RETURN(auto transports, make_local_shm(num_ranks, ring_bytes, options.epoch));
  std::vector<std::unique_ptr<Mesh>> meshes;
  for (int rank = 0; rank < num_ranks; rank++) {
    MeshOptions own = options;
    own.rank = rank;
    own.size = num_ranks;
    std::vector<std::unique_ptr<Transport>> own_transports;
    if (num_ranks > 1) own_transports.push_back(std::move(transports[rank]));
    ASSIGN_OR_RETURN(auto mesh, Mesh::create(std::move(own), std::move(own_transports)));
    meshes.push_back(std::move(mesh));
  }
  return meshes;
}

}  // namespace cachalot
