#include "comm/shm/ring.h"

#include <algorithm>
#include <cstring>

#include "base/math.h"

namespace cachalot {
namespace {

// What is copied before it is published, so that both ends of a long message work at the same time.
constexpr size_t kPortionBytes = 128 << 10;

}  // namespace

// If all is read, or of this lap as much as the message takes: then the consumer has also gone back where it was told
// to before, as that was in an earlier lap.
bool RingWriter::may_rewind(uint64_t lap, uint64_t num_bytes) const {
  return head_ == tail_ || head_ >= lap + num_bytes;
}

bool RingWriter::begin(uint64_t size) {
  uint64_t start = round_up(tail_, MessageHeader::kAlignment);
  const uint64_t offset = start & (data_.size() - 1);
  const bool far = offset >= SegmentLayout::kPage;  // within a page there is nothing to gain
  if (far || start + sizeof(MessageHeader) > head_ + data_.size()) look();
  if (far && may_rewind(start - offset, sizeof(MessageHeader) + size)) {
    control_.rewound_at.store(start, std::memory_order_relaxed);  // published with the tail
    start += data_.size() - offset;
    if (head_ == tail_) head_ = start;
  }
  if (start + sizeof(MessageHeader) > head_ + data_.size()) return false;
  const MessageHeader header{.size = size, .sequence = sequence_++, .epoch = epoch_};
  std::memcpy(at(start), &header, sizeof(header));
  tail_ = start + sizeof(header);
  in_message_ = true;
  num_written_ = 0;
  return true;
}

RingProgress RingWriter::write(std::span<const std::byte> message) {
  RingProgress progress;
  if (!in_message_) {
    if (!begin(message.size())) return progress;
    progress.moved = true;
  }
  const size_t wanted = std::min(message.size() - num_written_, kPortionBytes);
  if (head_ + data_.size() - tail_ < wanted) look();
  const size_t count = std::min<size_t>(wanted, head_ + data_.size() - tail_);
  if (count > 0) {
    const size_t until_end = data_.size() - (tail_ & (data_.size() - 1));
    const size_t first = std::min(count, until_end);
    std::memcpy(at(tail_), message.data() + num_written_, first);
    std::memcpy(data_.data(), message.data() + num_written_ + first, count - first);
    tail_ += count;
    num_written_ += count;
    progress.moved = true;
  }
  if (progress.moved) control_.tail.store(tail_);
  progress.done = num_written_ == message.size();
  in_message_ = !progress.done;
  return progress;
}

Status RingReader::check(uint64_t position) const {
  if (tail_ < position || tail_ - position > data_.size())
    return make_error(ErrorCode::kCorrupt, "its ring says {} to {} of {} bytes", position, tail_, data_.size());
  return {};
}

Result<bool> RingReader::begin(size_t capacity) {
  tail_ = control_.tail.load();
  uint64_t start = round_up(head_, MessageHeader::kAlignment);
  // Looked at after the tail, so what was said before the next message was published is seen here.
  if (start > 0 && start == control_.rewound_at.load(std::memory_order_relaxed))
    start = round_up(start + 1, data_.size());
  MessageHeader header;
  if (tail_ >= head_ && tail_ < start + sizeof(header)) return false;
  RETURN_IF_ERROR(check(start));
  std::memcpy(&header, at(start), sizeof(header));
  if (header.epoch != epoch_)
    return make_error(ErrorCode::kCorrupt, "a message of epoch {} came in epoch {}", header.epoch, epoch_);
  if (header.sequence != sequence_)
    return make_error(ErrorCode::kCorrupt, "message {} came where message {} was due", header.sequence, sequence_);
  if (header.size > capacity)
    return make_error(ErrorCode::kCorrupt, "a message of {} bytes came where at most {} are expected", header.size,
                      capacity);
  sequence_++;
  head_ = start + sizeof(header);
  in_message_ = true;
  message_size_ = header.size;
  num_read_ = 0;
  return true;
}

Result<RingProgress> RingReader::read(std::span<std::byte> buffer, size_t& size) {
  RingProgress progress;
  if (!in_message_) {
    ASSIGN_OR_RETURN(progress.moved, begin(buffer.size()));
    if (!progress.moved) return progress;
  }
  const size_t wanted = std::min(message_size_ - num_read_, kPortionBytes);
  if (tail_ - head_ < wanted) {
    tail_ = control_.tail.load();
    RETURN_IF_ERROR(check(head_));
  }
  const size_t count = std::min<size_t>(wanted, tail_ - head_);
  if (count > 0) {
    const size_t first = std::min(count, data_.size() - (head_ & (data_.size() - 1)));
    std::memcpy(buffer.data() + num_read_, at(head_), first);
    std::memcpy(buffer.data() + num_read_ + first, data_.data(), count - first);
    head_ += count;
    num_read_ += count;
    progress.moved = true;
  }
  if (progress.moved) control_.head.store(head_);
  progress.done = num_read_ == message_size_;
  if (progress.done) {
    size = message_size_;
    in_message_ = false;
  }
  return progress;
}

}  // namespace cachalot
