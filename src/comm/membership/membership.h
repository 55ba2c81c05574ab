#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "comm/membership/member.h"

namespace cachalot {

// This process's place in its group of ranks. All ranks meet at rank 0 and agree that they belong together; from then
// on a thread of each exchanges heartbeats with rank 0, so that every rank learns within the failure timeout that one
// is lost: at once where its process ended, after the timeout where it is stopped or cut off. A rank that leaves with a
// goodbye is not lost. A group never heals: after a loss, another of a later epoch may form.
//
// Thread-safe.
class Membership {
 public:
  // Waits for all ranks. Errors: the ranks do not agree (the same text on every rank), some did not come in time, this
  // one came too late or was stopped. A group of one has no thread and no sockets.
  static Result<std::unique_ptr<Membership>> join(const JoinOptions& options);
  ~Membership();  // leaves

  int rank() const { return rank_; }
  int size() const { return static_cast<int>(members_.size()); }
  uint32_t epoch() const { return epoch_; }
  const std::vector<Member>& members() const { return members_; }
  int isa_level() const { return isa_level_; }  // the lowest of the group
  const std::string& isa_name() const { return isa_name_; }

  // What this rank does, for its heartbeats; cheap enough for every step. Percent counts while it loads.
  void set_activity(Phase phase, uint64_t step);
  void set_percent(int percent);
  // This rank has loaded; waits until all have. Errors: a rank was lost or left.
  Status wait_until_all_ready();

  // Called once for each rank that is lost, this one among them, on the control thread; on the caller's for those lost
  // before. It must not set handlers itself.
  void set_lost_handler(std::function<void(const LostRank&)> handler);
  // On rank 0: what each rank says of its loading, on the control thread.
  void set_progress_handler(std::function<void(int rank, const Activity&)> handler);
  std::optional<LostRank> first_lost() const;

  // The process of a rank on this node, by a pidfd, which is duplicated: its end is seen at once.
  Status watch_process(int rank, int pidfd);

  // Tells the others that this rank cannot go on, and why, and leaves.
  void give_up(const std::string& why);
  // Says goodbye: the others do not take the end of this process for a loss. Waits, shortly, until rank 0 knows.
  void leave();

 private:
  struct Impl;
  Membership(std::unique_ptr<Impl> impl, const JoinOptions& options, std::vector<Member> members, int isa_level,
             std::string isa_name);
  void depart(std::optional<std::string> why);

  std::unique_ptr<Impl> impl_;
  int rank_;
  uint32_t epoch_;
  std::vector<Member> members_;
  int isa_level_;
  std::string isa_name_;
};

}  // namespace cachalot
