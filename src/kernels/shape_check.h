#pragma once

#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "tensor/view.h"

namespace cachalot {

// An extent by its name in the operation's comment, e.g. {"num_rows", 12}.
struct Dim {
  std::string_view symbol;
  int64_t value = 0;
};

// The checks at an operation's entry. A broken one aborts with operation, argument, symbol and both values.
class ShapeCheck {
 public:
  explicit ShapeCheck(std::string_view operation) : operation_(operation) {}

  void equal(std::string_view what, Dim expected, int64_t actual) const {
    CHECK(actual == expected.value, "{}: {} of {} is {}, should be {}", operation_, expected.symbol, what, actual,
          expected.value);
  }
  void at_most(std::string_view what, Dim limit, int64_t actual) const {
    CHECK(actual <= limit.value, "{}: {} is {}, {} is {}", operation_, what, actual, limit.symbol, limit.value);
  }
  void at_least(std::string_view what, Dim limit, int64_t actual) const {
    CHECK(actual >= limit.value, "{}: {} is {}, {} is {}", operation_, what, actual, limit.symbol, limit.value);
  }
  void multiple(std::string_view what, Dim unit, int64_t actual) const {
    CHECK(unit.value > 0 && actual % unit.value == 0, "{}: {} is {}, no multiple of {} {}", operation_, what, actual,
          unit.symbol, unit.value);
  }
  void require(bool condition, std::string_view what) const { CHECK(condition, "{}: {}", operation_, what); }

  // Every extent of a View or ComputeView.
  template <class Window, class... Dims>
  void shape(std::string_view name, const Window& window, Dims... dims) const {
    int dim = 0;
    (equal(name, dims, window.extent(dim++)), ...);
  }
  template <class Window, class... Dims>
  void shape_or_empty(std::string_view name, const Window& window, Dims... dims) const {
    if (!window.empty()) shape(name, window, dims...);
  }

 private:
  std::string_view operation_;
};

}  // namespace cachalot
