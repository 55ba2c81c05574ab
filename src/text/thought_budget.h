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
      : thought_(std::move(thought)),
        inner_(std::move(inner)),
        now_{.num_left = num_tokens, .in_thought = thought_.is_open} {}

  Status fill_mask(std::span<uint32_t> mask) override;
  Status accept(TokenId token) override;
  void rollback(int num_tokens) override;
  bool is_ready_by(std::chrono::steady_clock::time_point deadline) override;
  void set_wake(std::function<void()> wake) override;

 private:
  struct Place {
    int num_left = 0;  // of the thought
    bool is_first = true, in_thought = false;
  };
  bool must_end() const { return now_.in_thought && now_.num_left <= 0; }

  const Thought thought_;
  const std::unique_ptr<TokenConstraint> inner_;
  Place now_;
  std::vector<Place> before_;  // each token
};

}  // namespace cachalot
