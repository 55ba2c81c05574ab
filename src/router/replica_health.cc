#include "router/replica_health.h"

#include <algorithm>

namespace cachalot::router {

namespace {

constexpr double kFirstShare = 0.1;  // of a replica that has just come back
constexpr int kMostDoublings = 10;

}  // namespace

void ReplicaHealth::heard_well(Time now) {
  num_refused_ = 0;
  is_silent_ = false;
  if (state_ == State::kUp) return;
  if (ejected_until_ && now < *ejected_until_) return;
  // The first good answer of all tells enough; one that fell has to prove itself.
  if (state_ == State::kDown && ++num_good_ < policy_.rise) return;
  if (state_ == State::kDown) back_since_ = now;
  state_ = State::kUp;
  reason_.clear();
  ejected_until_.reset();
  num_errors_ = 0;
}

void ReplicaHealth::heard_ill(const std::string& reason) {
  go_down(reason, false);
}

void ReplicaHealth::heard_nothing(const std::string& reason) {
  go_down(reason, true);
}

void ReplicaHealth::was_refused(const std::string& reason) {
  if (state_ != State::kUp || ++num_refused_ >= policy_.fall) go_down(reason, false);
}

void ReplicaHealth::request_not_taken(const std::string& reason) {
  go_down(reason, false);
}

void ReplicaHealth::request_failed(Time now, const std::string& reason) {
  if (state_ != State::kUp || ++num_errors_ < policy_.eject_after_errors) return;
  const auto time = policy_.eject_time * (1 << std::min(num_ejections_++, kMostDoublings));
  ejected_until_ = now + std::min<std::chrono::milliseconds>(time, policy_.longest_eject_time);
  go_down(reason, false);
}

void ReplicaHealth::go_down(const std::string& reason, bool is_silent) {
  num_good_ = num_refused_ = 0;
  is_silent_ = is_silent;
  reason_ = reason;
  if (state_ != State::kUp) return;  // one that never was up is still starting
  state_ = State::kDown;
  num_falls_++;
}

double ReplicaHealth::ramp(Time now) const {
  if (!back_since_ || policy_.slow_start.count() == 0) return 1;
  const std::chrono::duration<double> back = now - *back_since_;
  const double share = back / std::chrono::duration<double>(policy_.slow_start);
  return std::clamp(share, kFirstShare, 1.0);
}

}  // namespace cachalot::router
