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
  const bool is_first = std::exchange(is_first_, false);
  if (in_thought_) {
    in_thought_ = token != thought_.end && token != thought_.call;
    --num_left_;
  } else if (is_first && token == thought_.begin) {
    in_thought_ = true;
  }
  return inner_ ? inner_->accept(token) : Status();
}

bool ThoughtBudget::is_ready_by(std::chrono::steady_clock::time_point deadline) {
  return must_end() || !inner_ || inner_->is_ready_by(deadline);
}

void ThoughtBudget::set_wake(std::function<void()> wake) {
  if (inner_) inner_->set_wake(std::move(wake));
}

}  // namespace cachalot
