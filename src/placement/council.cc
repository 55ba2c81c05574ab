#include "placement/council.h"

#include <algorithm>
#include <utility>

namespace cachalot {
namespace {

using Standing = CouncilWord::Standing;
using Verdict = CouncilVerdict;

uint32_t short_hash(const ExpertPlacement& placement) {
  return static_cast<uint32_t>(placement.hash());
}

}  // namespace

Council::Council(const EplbOptions& options, int rank, SharedPlacement now, uint64_t step)
    : options_(options),
      rank_(rank),
      now_(std::move(now)),
      next_step_(step + static_cast<uint64_t>(options.step_interval)) {}

CouncilWord Council::word(uint64_t step) const {
  CouncilWord word{.step = step, .version = now_->version(), .hash = short_hash(*now_), .standing = standing_};
  const ExpertPlacement* const next = next_                            ? next_.get()
                                      : rank_ == 0 && !stages_.empty() ? stages_.front().get()
                                                                       : nullptr;
  if (next) {
    word.next_version = next->version();
    word.next_hash = short_hash(*next);
  }
  return word;
}

void Council::plan(std::deque<SharedPlacement> stages) {
  CHECK(rank_ == 0 && state_ == State::kPlanning);
  stages_ = std::move(stages);
  standing_ = stages_.empty() ? Standing::kNothing : Standing::kOffers;
}

void Council::count_again(uint64_t step) {
  state_ = State::kCounting;
  standing_ = Standing::kBusy;
  next_ = nullptr;
  stages_.clear();
  next_step_ = step + static_cast<uint64_t>(options_.step_interval);
}

Result<Verdict> Council::hear(std::span<const CouncilWord> words) {
  const CouncilWord own = words[static_cast<size_t>(rank_)];
  for (size_t rank = 0; rank < words.size(); rank++) {
    const CouncilWord& word = words[rank];
    const bool same_next =
        state_ != State::kCopying || (word.next_version == own.next_version && word.next_hash == own.next_hash);
    if (word.step != own.step || word.version != own.version || word.hash != own.hash || !same_next)
      return make_error(ErrorCode::kInternal,
                        "rank {} is at step {} by placement {} ({:08x}, then {}) of the experts, rank {} at step {} by "
                        "{} ({:08x}, then {})",
                        rank, word.step, word.version, word.hash, word.next_version, rank_, own.step, own.version,
                        own.hash, own.next_version);
  }
  next_step_ = own.step + static_cast<uint64_t>(options_.pace);
  if (state_ == State::kCounting) {
    state_ = State::kPlanning;
    return Verdict::kCount;
  }
  if (state_ == State::kPlanning) {
    if (words[0].standing == Standing::kBusy) return Verdict::kGoOn;
    if (words[0].standing == Standing::kNothing) {
      count_again(own.step);
      return Verdict::kGoOn;
    }
    offered_version_ = words[0].next_version;
    offered_hash_ = words[0].next_hash;
    state_ = State::kCopying;
    standing_ = Standing::kBusy;
    return Verdict::kCopy;
  }
  if (const auto failed = std::ranges::find(words, Standing::kFailed, &CouncilWord::standing); failed != words.end()) {
    first_failed_ = static_cast<int>(failed - words.begin());
    count_again(own.step);
    return Verdict::kDrop;
  }
  const auto is_ready = [](const CouncilWord& word) { return word.standing == Standing::kReady; };
  if (!std::ranges::all_of(words, is_ready)) return Verdict::kGoOn;
  now_ = std::exchange(next_, nullptr);
  state_ = State::kPlanning;
  standing_ = Standing::kBusy;
  if (rank_ == 0) {
    stages_.pop_front();
    plan(std::move(stages_));
  }
  next_step_ = own.step + 1;
  return Verdict::kSwitch;
}

Status Council::begin(SharedPlacement next) {
  CHECK(state_ == State::kCopying && !next_);
  if (next->version() != offered_version_ || short_hash(*next) != offered_hash_)
    return make_error(ErrorCode::kCorrupt, "rank 0 offered placement {} ({:08x}) of the experts, and sent {} ({:08x})",
                      offered_version_, offered_hash_, next->version(), short_hash(*next));
  next_ = std::move(next);
  return {};
}

void LoadWindow::note(uint64_t step) {
  constexpr uint64_t kParts = 8;
  if (!snapshots_.empty() && step - snapshots_.back().step < std::max<uint64_t>(window_size_ / kParts, 1)) return;
  snapshots_.push_back({step, {counts_.begin(), counts_.end()}});
  while (snapshots_.size() > 1 && step - snapshots_[1].step >= window_size_) snapshots_.pop_front();
}

std::vector<uint32_t> LoadWindow::counts() const {
  std::vector<uint32_t> window(counts_.size());
  for (size_t idx = 0; idx < window.size(); idx++) {
    const uint64_t before = snapshots_.empty() ? 0 : snapshots_.front().counts[idx];
    window[idx] = static_cast<uint32_t>(std::min<uint64_t>(counts_[idx] - before, UINT32_MAX));
  }
  return window;
}

}  // namespace cachalot
