#include "text/thought_budget.h"

#include <algorithm>
#include <utility>

namespace cachalot {

Status ThoughtBudget::fill_mask(std::span<uint32_t> mask) {
  if (must_end()) {
    std::ranges::fill(mask, 0u);
    mask[static_cast<size_t>(*thought_.end) / 32] |= 1u << (static_cast<uint32_t>(*thought_.end) % 32);
    return {};
  }
  return inner_ ? inner_->fill_mask(mask) : Status();
}

Status ThoughtBudget::accept(TokenId token) {
  before_.push_back(now_);
  const bool is_first = std::exchange(now_.is_first, false);
  if (now_.in_thought) {
    now_.in_thought = token != thought_.end && token != thought_.call;
    --now_.num_left;
  } else if (is_first && token == thought_.begin) {
    now_.in_thought = true;
  }
  return inner_ ? inner_->accept(token) : Status();
}

void ThoughtBudget::rollback(int num_tokens) {
  const auto num_kept = static_cast<size_t>(num_tokens);
  if (num_kept < before_.size()) now_ = before_[num_kept];
  before_.resize(std::min(before_.size(), num_kept));
  if (inner_) inner_->rollback(num_tokens);
}

bool ThoughtBudget::is_ready_by(std::chrono::steady_clock::time_point deadline) {
  return must_end() || !inner_ || inner_->is_ready_by(deadline);
}

void ThoughtBudget::set_wake(std::function<void()> wake) {
  if (inner_) inner_->set_wake(std::move(wake));
}

}  // namespace cachalot
