#pragma once

#include <memory>

#include "text/grammar.h"

namespace cachalot {

// Ends a thought that has so many tokens: then nothing but its end may come. Holds the answer to another constraint,
// too, if there is one.
class ThoughtBudget : public TokenConstraint {
 public:
  // `thought`: with an end.
  ThoughtBudget(Thought thought, int num_tokens, std::unique_ptr<TokenConstraint> inner)
      : thought_(std::move(thought)), num_left_(num_tokens), inner_(std::move(inner)), in_thought_(thought_.is_open) {}

  Status fill_mask(std::span<uint32_t> mask) override;
  Status accept(TokenId token) override;
  bool is_ready_by(std::chrono::steady_clock::time_point deadline) override;
  void set_wake(std::function<void()> wake) override;

 private:
  bool must_end() const { return in_thought_ && num_left_ <= 0; }

  const Thought thought_;
  int num_left_;  // of the thought
  const std::unique_ptr<TokenConstraint> inner_;
  bool is_first_ = true, in_thought_;
};

}  // namespace cachalot
