#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/error.h"

namespace cachalot {

// Memory that the ranks of a group on one node have in common, for collectives in few steps: each rank writes once, on
// its own slot, what the others are to have, and when all have arrived each reads what it wants of the others' slots.
// One wake-up a rank and round, where messages take one a pair. Used by one thread, the engine's.
//
//   begin_round(); write own(); if (arrive(note)) { what one rank does for all; publish(); } else Mesh::wait(board)
//   read of(member)
//
// Two slots a rank take turns: who has passed a round's wait knows that all have read those of the round before.
class Board {
 public:
  virtual ~Board() = default;
  virtual int rank() const = 0;  // in the group
  virtual int size() const = 0;
  virtual size_t slot_bytes() const = 0;

  virtual void begin_round() = 0;
  virtual std::span<std::byte> own() = 0;
  // note: what this rank does, which should be what all do. Gives whether it is the last to arrive, and has to publish.
  virtual bool arrive(uint64_t note) = 0;
  virtual void publish() = 0;

  virtual bool is_published() const = 0;
  // Of the round, once it is published (for the last to arrive: at once).
  virtual std::span<const std::byte> of(int member) const = 0;
  virtual bool notes_agree() const = 0;
  virtual uint64_t note_of(int member) const = 0;
  virtual int last() const = 0;

  // For who waits. The error: a member that has not arrived has closed its connections.
  virtual Status check_members() const = 0;
  // Gives a descriptor that becomes readable once the round is published; it is looked at once more before a poll().
  virtual int prepare_sleep() = 0;
  virtual void end_sleep() = 0;
  virtual std::vector<int> awaited() const = 0;  // ranks of the mesh that have not arrived, or not published
  // Bytes that this rank wrote for others, once for each who reads them, and that it read from others.
  virtual void count(uint64_t sent, uint64_t received) = 0;
};

}  // namespace cachalot
