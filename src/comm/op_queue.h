#pragma once

#include <cstddef>
#include <vector>

namespace cachalot {

// Started operations in order. Allocates only when it grows past what it ever held.
template <class Op>
class OpQueue {
 public:
  bool empty() const { return first_ == ops_.size(); }
  Op& front() { return *ops_[first_]; }
  void push(Op& op) {
    if (first_ > 0 && ops_.size() == ops_.capacity()) {
      ops_.erase(ops_.begin(), ops_.begin() + static_cast<std::ptrdiff_t>(first_));
      first_ = 0;
    }
    ops_.push_back(&op);
  }
  void pop() {
    if (++first_ == ops_.size()) clear();
  }
  void clear() {
    ops_.clear();
    first_ = 0;
  }

 private:
  std::vector<Op*> ops_;
  size_t first_ = 0;  // those before are through
};

}  // namespace cachalot
