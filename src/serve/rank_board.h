#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/file_descriptor.h"
#include "engine/rank_report.h"

namespace cachalot {

// Where the ranks that one process started write what they have done, for that process to read: memory that they share
// by an inherited file descriptor. Each slot has one writer. The board also holds a random secret, so that those ranks
// know each other.
class RankBoard {
 public:
  // A new board; `fd()` is handed to child processes.
  static Result<std::unique_ptr<RankBoard>> create(int num_slots);
  // The board of the process that started this one.
  static Result<std::unique_ptr<RankBoard>> attach(int fd);
  ~RankBoard();
  RankBoard(const RankBoard&) = delete;
  RankBoard& operator=(const RankBoard&) = delete;

  int fd() const { return fd_.get(); }
  int num_slots() const { return num_slots_; }
  std::string secret() const;
  void write(int slot, const RankReport& report);
  // Nothing yet: no report. Always one whole report.
  std::optional<RankReport> read(int slot) const;

 private:
  struct Header;
  struct Slot;
  RankBoard(FileDescriptor fd, Header* header);
  size_t num_bytes() const;

  FileDescriptor fd_;
  Header* header_;
  Slot* slots_;  // behind the header
  int num_slots_;
};

}  // namespace cachalot
