#include "comm/membership/group_state.h"

#include <algorithm>

#include "base/error.h"
#include "base/log.h"

namespace cachalot::control {
namespace {

// A handler that throws, or a line for which there is no memory, must not keep what follows from being done, nor end
// the heartbeats of the thread that does it.
template <class Body>
void guarded(Body body) {
  try {
    body();
  } catch (const std::exception& exception) {
    try {
      log::error("a handler of the membership failed: {}", exception.what());
    } catch (const std::exception&) {  // not even for this line
    }
  }
}

}  // namespace

void GroupState::set_formed(Formed formed) {
  const std::lock_guard lock(mutex_);
  if (!start_) start_ = std::move(formed);
  changed_.notify_all();
}

void GroupState::set_start_failed(Error error) {
  const std::lock_guard lock(mutex_);
  if (!start_) start_ = std::unexpected(std::move(error));
  changed_.notify_all();
}

bool GroupState::start_is_decided() const {
  const std::lock_guard lock(mutex_);
  return start_.has_value();
}

void GroupState::report_lost(int rank, std::string cause, std::optional<Activity> doing) {
  const std::lock_guard handler_lock(handler_mutex_);
  LostRank lost{.rank = rank, .cause = std::move(cause), .doing = doing, .is_this_rank = rank == rank_};
  {
    const std::lock_guard lock(mutex_);
    CHECK(start_ && *start_, "a rank can be lost only by a group");
    lost.name = start_->value().members[rank].name();
    LostRank copy = lost;
    if (absent_.contains(rank_) || !absent_.insert(rank).second) return;
    lost_.push_back(std::move(copy));
    changed_.notify_all();
  }
  // Heartbeats are rare beside steps; but ranks step together, and this one knows where it is.
  const Activity own = activity();
  const bool tell_own = !lost.is_this_rank && own.phase == Phase::kStep;
  guarded([&] { log::error("{}{}", lost.message(), tell_own ? fmt::format("; this rank is {}", own.text()) : ""); });
  if (lost_handler_) guarded([&] { lost_handler_(lost); });
}

void GroupState::set_left(int rank) {
  const std::lock_guard lock(mutex_);
  if (!absent_.insert(rank).second) return;
  if (first_left_.empty() && start_ && *start_) first_left_ = start_->value().members[rank].name();
  changed_.notify_all();
}

bool GroupState::is_present(int rank) const {
  const std::lock_guard lock(mutex_);
  return !absent_.contains(rank);
}

void GroupState::set_all_ready() {
  const std::lock_guard lock(mutex_);
  all_ready_ = true;
  changed_.notify_all();
}

void GroupState::set_gone() {
  const std::lock_guard lock(mutex_);
  gone_ = true;
  changed_.notify_all();
}

void GroupState::report_progress(int rank, const Activity& activity) {
  const std::lock_guard handler_lock(handler_mutex_);
  if (progress_handler_) guarded([&] { progress_handler_(rank, activity); });
}

Activity GroupState::activity() const {
  const uint64_t packed = activity_.load(std::memory_order_relaxed);
  return {
      .phase = static_cast<Phase>(packed >> 56),
      .percent = percent_.load(std::memory_order_relaxed),
      .step = packed & (~0ull >> 8),
  };
}

std::optional<LostRank> GroupState::first_lost() const {
  const std::lock_guard lock(mutex_);
  return lost_.empty() ? std::nullopt : std::optional(lost_.front());
}

bool GroupState::readiness_is_decided() const {
  const std::lock_guard lock(mutex_);
  return is_through_loading();
}

Result<Formed> GroupState::wait_until_formed() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return start_.has_value(); });
  return *start_;
}

Status GroupState::wait_until_all_ready() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return is_through_loading(); });
  if (!lost_.empty()) return make_error(ErrorCode::kUnavailable, "{}", lost_.front().message());
  if (!all_ready_) return make_error(ErrorCode::kCancelled, "{} has left before all ranks had loaded", first_left_);
  return {};
}

bool GroupState::wait_until_gone(std::chrono::milliseconds timeout) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, timeout, [&] { return gone_; });
}

void GroupState::set_lost_handler(std::function<void(const LostRank&)> handler) {
  const std::lock_guard handler_lock(handler_mutex_);
  lost_handler_ = std::move(handler);
  if (!lost_handler_) return;
  std::vector<LostRank> before;
  {
    const std::lock_guard lock(mutex_);
    before = lost_;
  }
  for (const LostRank& lost : before) guarded([&] { lost_handler_(lost); });
}

void GroupState::set_progress_handler(std::function<void(int rank, const Activity&)> handler) {
  const std::lock_guard handler_lock(handler_mutex_);
  progress_handler_ = std::move(handler);
}

}  // namespace cachalot::control
