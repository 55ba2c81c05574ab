#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/error.h"
#include "comm/shm/segment.h"

namespace cachalot {

// Messages as a stream through one ring (RingControl and its data). A message may be many times longer than the ring:
//
//   [ padding to 64 bytes ][ MessageHeader ][ size bytes, which may go round the ring's end ]
//
// A writer goes back to the ring's start as soon as a message has room there, since there the caches are warm (and
// pages need not be touched that no message needs): RingControl::rewound_at says from where, before the message is
// published. If the ring was empty, all of it is then free for what follows.
struct MessageHeader {
  static constexpr uint64_t kAlignment = 64;  // so that headers do not go round the ring's end

  uint64_t size = 0;
  uint64_t sequence = 0;  // of this ring, from 0
  uint64_t epoch = 0;
};

struct RingProgress {
  bool moved = false;  // something is published, or freed
  bool done = false;   // the message is through
};

// The producer's end of a ring. Used by one thread.
class RingWriter {
 public:
  RingWriter(RingControl& control, std::span<std::byte> data, uint64_t epoch)
      : control_(control), data_(data), epoch_(epoch) {}

  // Writes and publishes the next portion of the message, as there is space. Called with the same message until done.
  RingProgress write(std::span<const std::byte> message);

 private:
  bool begin(uint64_t size);
  bool may_rewind(uint64_t lap, uint64_t num_bytes) const;
  void look() { head_ = std::max(head_, control_.head.load()); }
  std::byte* at(uint64_t position) { return data_.data() + (position & (data_.size() - 1)); }

  RingControl& control_;
  std::span<std::byte> data_;
  uint64_t epoch_;
  uint64_t tail_ = 0;
  uint64_t head_ = 0;  // all before it is read: the consumer's, when last looked at, or where an empty ring begins anew
  uint64_t sequence_ = 0;
  bool in_message_ = false;
  size_t num_written_ = 0;  // of the message
};

// The consumer's end. Used by one thread.
class RingReader {
 public:
  RingReader(RingControl& control, std::span<const std::byte> data, uint64_t epoch)
      : control_(control), data_(data), epoch_(epoch) {}

  // Reads the next portion of a message into the buffer. Called with the same buffer until done; `size` is then the
  // message's. Errors: the message is longer than the buffer, of another epoch, or the ring makes no sense.
  Result<RingProgress> read(std::span<std::byte> buffer, size_t& size);
  uint64_t num_unread() const { return control_.tail.load(std::memory_order_relaxed) - head_; }

 private:
  Result<bool> begin(size_t capacity);
  Status check(uint64_t position) const;  // that the tail is possible, where that is the first byte wanted
  const std::byte* at(uint64_t position) const { return data_.data() + (position & (data_.size() - 1)); }

  RingControl& control_;
  std::span<const std::byte> data_;
  uint64_t epoch_;
  uint64_t head_ = 0;
  uint64_t tail_ = 0;  // the producer's, when last looked at
  uint64_t sequence_ = 0;
  bool in_message_ = false;
  size_t message_size_ = 0, num_read_ = 0;
};

}  // namespace cachalot
