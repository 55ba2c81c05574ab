#include "router/replica_health.h"

#include <algorithm>

namespace cachalot::router {

namespace {

constexpr double kFirstShare = 0.1;  // of a replica that has just come back
constexpr int kMostDoublings = 10;
constexpr int kQuarters = 4;

constexpr int kLossesOfASuspect = 2;
constexpr std::chrono::seconds kFirstPenalty{30};
constexpr int kMostPenaltyDoublings = 6;
constexpr std::chrono::minutes kSuspectMemory{60};
constexpr size_t kMostSuspects = 4096;

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

void ReplicaHealth::request_failed(Time now, const std::string& reason, bool has_words) {
  num_errors_ += has_words ? 1 : kQuarters;
  if (state_ != State::kUp || num_errors_ < policy_.eject_after_errors * kQuarters) return;
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

std::chrono::seconds Suspects::penalty(int num_losses) {
  return kFirstPenalty * (1 << std::min(num_losses - kLossesOfASuspect, kMostPenaltyDoublings));
}

void Suspects::add(uint64_t hash, int num_losses, Time now) {
  const std::lock_guard lock(mutex_);
  if (known_.size() >= kMostSuspects && !known_.contains(hash)) {
    std::erase_if(known_, [&](const auto& entry) { return now - entry.second.last > kSuspectMemory; });
    if (known_.size() >= kMostSuspects)
      known_.erase(std::ranges::min_element(known_, {}, [](const auto& entry) { return entry.second.last; }));
  }
  Suspect& suspect = known_[hash];
  suspect.num_losses += num_losses;
  suspect.last = now;
  num_known_ = known_.size();
}

void Suspects::acquit(uint64_t hash) {
  const std::lock_guard lock(mutex_);
  known_.erase(hash);
  num_known_ = known_.size();
}

std::optional<std::chrono::seconds> Suspects::refused_for(uint64_t hash, Time now) const {
  const std::lock_guard lock(mutex_);
  const auto found = known_.find(hash);
  if (found == known_.end() || found->second.num_losses < kLossesOfASuspect) return std::nullopt;
  const auto left = found->second.last + penalty(found->second.num_losses) - now;
  if (left <= std::chrono::seconds(0)) return std::nullopt;
  return std::chrono::ceil<std::chrono::seconds>(left);
}

}  // namespace cachalot::router
