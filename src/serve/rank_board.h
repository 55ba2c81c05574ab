#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <type_traits>

#include "base/error.h"
#include "base/file.h"
#include "engine/placement.h"

namespace cachalot {

enum class RankPhase : uint64_t {
  kStarting,  // runs, and has not said more yet
  kForming,   // waits for the other ranks
  kLoading,
  kReady,
  kDraining,  // finishes what it has begun
  kFailed,
};

// What a rank says of itself. Plain numbers, so that it can be read across processes; whoever reads it trusts none of
// them. Why it ended stands in its EndReport.
struct RankState {
  RankPhase phase = RankPhase::kStarting;
  uint64_t percent = 0;  // of its weights, that are loaded
  uint64_t has_report = 0;
  RankReport report;
  uint64_t error_code = 0;  // kFailed

  void set_failed(ErrorCode code);
  ErrorCode failure() const;
};
static_assert(std::is_trivially_copyable_v<RankState> && sizeof(RankState) % sizeof(uint64_t) == 0);

// Where the ranks that one process started write how they are, for that process to read: memory that they share by an
// inherited file descriptor. A slot belongs to the process of its rank, of which any thread may write it. The board
// also holds a random secret, so that those ranks know each other.
class RankBoard {
 public:
  // A new board; `fd()` is handed to child processes. num_counts: numbers that each rank counts for all to read.
  static Result<std::unique_ptr<RankBoard>> create(int num_slots, size_t num_counts);
  // The board of the process that started this one.
  static Result<std::unique_ptr<RankBoard>> attach(int fd);
  ~RankBoard();
  RankBoard(const RankBoard&) = delete;
  RankBoard& operator=(const RankBoard&) = delete;

  int fd() const { return fd_.get(); }
  int num_slots() const { return num_slots_; }
  std::string secret() const;
  // Written by the rank of the slot alone, and read as atomic numbers.
  std::span<uint64_t> counts(int slot) const;
  void write(int slot, const RankState& state);
  // Nothing yet: no state. Always one whole state.
  std::optional<RankState> read(int slot) const;

 private:
  struct Header;
  struct Slot;
  RankBoard(FileDescriptor fd, Header* header);
  size_t num_bytes() const;

  FileDescriptor fd_;
  Header* header_;
  Slot* slots_;  // behind the header, and behind them the counts
  int num_slots_;
  std::mutex writing_;  // held by the one thread of this process that writes
};

}  // namespace cachalot
