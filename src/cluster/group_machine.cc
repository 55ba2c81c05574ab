#include "cluster/group_machine.h"

#include <algorithm>

namespace cachalot {

const char* to_text(GroupState state) {
  switch (state) {
    case GroupState::kStarting:
      return "starting";
    case GroupState::kReady:
      return "ready";
    case GroupState::kLost:
      return "lost";
    case GroupState::kBackingOff:
      return "backing off";
    case GroupState::kGaveUp:
      return "gave up";
  }
  return "";
}

GroupMachine::Action GroupMachine::next(Time now) {
  if (state_ == GroupState::kLost && std::ranges::none_of(runs_, std::identity{})) after_all_ended(now);
  if (now < due_) return Action::kNothing;
  if (state_ == GroupState::kLost) {
    due_ = now + kGrace;  // a process that does not die at once is killed again
    return Action::kKill;
  }
  if (state_ != GroupState::kBackingOff) return Action::kNothing;
  if (has_started_) {
    num_restarts_++;
    restarts_.push_back(now);
  }
  has_started_ = true;
  state_ = GroupState::kStarting;
  runs_.assign(runs_.size(), true);
  ready_.assign(ready_.size(), false);
  return Action::kStart;
}

void GroupMachine::member_ready(size_t member) {
  if (state_ != GroupState::kStarting) return;
  ready_[member] = true;
  if (!std::ranges::all_of(ready_, std::identity{})) return;
  state_ = GroupState::kReady;
  has_served_ = true;
}

void GroupMachine::member_lost(size_t member, const std::string& why, Time now) {
  if (state_ != GroupState::kStarting && state_ != GroupState::kReady) return;
  state_ = GroupState::kLost;
  num_losses_++;
  lost_member_ = member;
  loss_ = why;
  due_ = now + kGrace;
}

void GroupMachine::member_ended(size_t member, const std::string& how, Time now) {
  runs_[member] = false;
  ready_[member] = false;
  member_lost(member, how, now);
}

void GroupMachine::after_all_ended(Time now) {
  while (!restarts_.empty() && now - restarts_.front() >= policy_.window) restarts_.pop_front();
  if (!has_served_ || std::ssize(restarts_) >= policy_.most_restarts) {
    state_ = GroupState::kGaveUp;
    return;
  }
  std::chrono::milliseconds wait = policy_.first_wait;
  for (size_t idx = 0; idx < restarts_.size() && wait < policy_.longest_wait; idx++) wait *= 2;
  state_ = GroupState::kBackingOff;
  due_ = now + std::min(wait, policy_.longest_wait);
}

}  // namespace cachalot
