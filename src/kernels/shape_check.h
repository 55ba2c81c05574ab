#pragma once

#include <iterator>
#include <string_view>

#include "base/math.h"
#include "kernels/cores.h"

// The checks of shapes at the entry of operations.
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

inline constexpr int64_t kPair = 2;  // rotated numbers come in pairs

inline void check_quantized(const ShapeCheck& check, const QuantizedRows& rows, Dim num_rows, Dim features) {
  if (rows.empty()) return;
  check.require(rows.group == 32 || rows.group == 64, "groups of quantized rows are 32 or 64 inputs");
  check.shape("quantized values", rows.values, num_rows, features);
  check.shape("quantized scales", rows.scales, num_rows, Dim{"num_groups", ceil_div(features.value, rows.group)});
}

// Values or int8 rows, or both alike.
inline void check_input(const ShapeCheck& check, const LinearInput& input, Dim num_rows, Dim in_features) {
  if (num_rows.value == 0) return;
  check.equal("input", in_features, input.num_features());
  check.shape_or_empty("input values", input.values, num_rows, in_features);
  check_quantized(check, input.quantized, num_rows, in_features);
}

inline void check_result(const ShapeCheck& check, View<const float, 2> out, const QuantizedRows& quantized,
                         Dim num_rows, Dim features) {
  check.shape_or_empty("out", out, num_rows, features);
  check_quantized(check, quantized, num_rows, features);
  check.require(!out.empty() || !quantized.empty() || num_rows.value == 0, "neither floats nor int8 rows are wanted");
}

inline void check_matrix(const ShapeCheck& check, std::string_view name, const PackedMatrix& matrix, Dim out_features,
                         Dim in_features) {
  check.equal(name, out_features, matrix.shape.out_features);
  check.equal(name, in_features, matrix.shape.in_features);
}

inline Dim gate_up_outputs(int64_t width) {
  return {"out_features (2 x whole strips of width)", 2 * round_up(width, kStrip)};
}

inline void check_rope(const ShapeCheck& check, const RopeTable& rope, Dim rope_dim) {
  check.multiple("rope_dim", {"a pair's", kPair}, rope_dim.value);
  check.equal("cos", {"rope_dim / 2", rope_dim.value / kPair}, rope.cos.extent(1));
  check.shape("sin", rope.sin, Dim{"max_position", rope.cos.extent(0)}, Dim{"rope_dim / 2", rope_dim.value / kPair});
}

// The sequence's blocks hold `num_positions`, and the cache at least `features` numbers a slot.
inline void check_context(const ShapeCheck& check, const CachedContext& context, int64_t num_positions, Dim features) {
  check.at_least("the cache's width", features, context.cache.extent(1));
  check.at_least("block_size", {"the smallest", 1}, context.block_size);
  check.at_most("the last position + 1",
                {"the capacity of the sequence's blocks", std::ssize(context.blocks) * context.block_size},
                num_positions);
}

}  // namespace cachalot
