#include "serve/rank_board.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cerrno>
#include <cstring>

namespace cachalot {

// Two states, of which the version's parity tells the last whole one: the writer is at the other. So a writer that is
// interrupted, or dies, leaves a whole state behind.
struct RankBoard::Slot {
  static constexpr size_t kWords = sizeof(RankState) / sizeof(uint64_t);
  using Words = std::array<uint64_t, kWords>;

  std::atomic<uint64_t> version;  // 0: no state yet
  std::atomic<uint64_t> words[2][kWords];
};

struct RankBoard::Header {
  static constexpr uint64_t kMagic = 0x6472616f62303330;

  uint64_t magic, num_slots, num_counts;
  std::array<char, 32> secret;
};

namespace {

constexpr size_t kHeaderBytes = 64;  // the slots begin behind it

size_t board_bytes(size_t num_slots, size_t num_counts, size_t slot_bytes) {
  return kHeaderBytes + num_slots * (slot_bytes + num_counts * sizeof(uint64_t));
}

Result<void*> map_board(int fd, size_t bytes) {
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (memory == MAP_FAILED)
    return make_error(ErrorCode::kIo, "the board of ranks cannot be mapped: {}", std::strerror(errno));
  return memory;
}

}  // namespace

void RankState::set_failed(ErrorCode code) {
  phase = RankPhase::kFailed;
  error_code = static_cast<uint64_t>(code);
}

ErrorCode RankState::failure() const {
  return static_cast<ErrorCode>(std::min(error_code, static_cast<uint64_t>(ErrorCode::kInternal)));
}

RankBoard::RankBoard(FileDescriptor fd, Header* header)
    : fd_(std::move(fd)),
      header_(header),
      slots_(reinterpret_cast<Slot*>(reinterpret_cast<std::byte*>(header) + kHeaderBytes)),
      num_slots_(static_cast<int>(header->num_slots)) {
  static_assert(sizeof(Header) <= kHeaderBytes);
}

size_t RankBoard::num_bytes() const {
  return board_bytes(static_cast<size_t>(num_slots_), header_->num_counts, sizeof(Slot));
}

std::span<uint64_t> RankBoard::counts(int slot) const {
  auto* const first = reinterpret_cast<uint64_t*>(slots_ + num_slots_);
  return {first + static_cast<size_t>(slot) * header_->num_counts, header_->num_counts};
}

Result<std::unique_ptr<RankBoard>> RankBoard::create(int num_slots, size_t num_counts) {
  FileDescriptor fd(memfd_create("cachalot-ranks", 0));  // without CLOEXEC: children inherit it
  const size_t bytes = board_bytes(static_cast<size_t>(num_slots), num_counts, sizeof(Slot));
  if (!fd || ftruncate(fd.get(), static_cast<off_t>(bytes)) != 0)
    return make_error(ErrorCode::kIo, "no memory for the board of {} ranks: {}", num_slots, std::strerror(errno));
  ASSIGN_OR_RETURN(void* memory, map_board(fd.get(), bytes));
  auto* header = static_cast<Header*>(memory);
  *header = {
      .magic = Header::kMagic, .num_slots = static_cast<uint64_t>(num_slots), .num_counts = num_counts, .secret = {}};
  if (getrandom(header->secret.data(), header->secret.size(), 0) != static_cast<ssize_t>(header->secret.size()))
    return make_error(ErrorCode::kIo, "getrandom: {}", std::strerror(errno));
  return std::unique_ptr<RankBoard>(new RankBoard(std::move(fd), header));
}

Result<std::unique_ptr<RankBoard>> RankBoard::attach(int fd) {
  struct stat status{};
  const auto not_a_board = [fd] {
    return make_parameter_error("--rank-board", "--rank-board {}: not a board of ranks", fd);
  };
  if (fstat(fd, &status) != 0 || !S_ISREG(status.st_mode) || static_cast<size_t>(status.st_size) < kHeaderBytes)
    return not_a_board();
  const auto bytes = static_cast<size_t>(status.st_size);
  ASSIGN_OR_RETURN(void* memory, map_board(fd, bytes));
  auto* header = static_cast<Header*>(memory);
  if (header->magic != Header::kMagic || board_bytes(header->num_slots, header->num_counts, sizeof(Slot)) != bytes) {
    munmap(memory, bytes);
    return not_a_board();
  }
  return std::unique_ptr<RankBoard>(new RankBoard(FileDescriptor(fd), header));
}

RankBoard::~RankBoard() {
  munmap(header_, num_bytes());
}

std::string RankBoard::secret() const {
  return {header_->secret.data(), header_->secret.size()};
}

void RankBoard::write(int slot, const RankState& state) {
  const std::lock_guard lock(writing_);
  Slot& target = slots_[slot];
  const auto words = std::bit_cast<Slot::Words>(state);
  const uint64_t version = target.version.load(std::memory_order_relaxed) + 1;
  // Whoever sees one of the words below also sees the version before them, and reads again.
  std::atomic_thread_fence(std::memory_order_release);
  for (size_t idx = 0; idx < words.size(); idx++)
    target.words[version % 2][idx].store(words[idx], std::memory_order_relaxed);
  target.version.store(version, std::memory_order_release);
}

std::optional<RankState> RankBoard::read(int slot) const {
  const Slot& source = slots_[slot];
  for (;;) {
    const uint64_t version = source.version.load(std::memory_order_acquire);
    if (version == 0) return std::nullopt;
    Slot::Words words;
    for (size_t idx = 0; idx < words.size(); idx++)
      words[idx] = source.words[version % 2][idx].load(std::memory_order_relaxed);
    std::atomic_thread_fence(std::memory_order_acquire);
    if (source.version.load(std::memory_order_relaxed) == version) return std::bit_cast<RankState>(words);
  }
}

}  // namespace cachalot
