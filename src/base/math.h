#pragma once

#include <algorithm>
#include <string_view>
#include <type_traits>
#include <vector>

// Small arithmetic that many folders need. The templates are always inlined, so that files compiled for an instruction
// level may use them (tests/isa_symbols_test.sh).
namespace cachalot {

// value / unit, rounded up; of numbers that are not negative.
template <class T, class U>
[[gnu::always_inline]] constexpr std::common_type_t<T, U> ceil_div(T value, U unit) {
  return (value + unit - 1) / unit;
}

// The smallest multiple of `unit` that is not below `value`.
template <class T, class U>
[[gnu::always_inline]] constexpr std::common_type_t<T, U> round_up(T value, U unit) {
  return ceil_div(value, unit) * unit;
}

// Of at least one value; of an even number of them, the mean of the middle two.
inline double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::ranges::nth_element(values, middle);
  return values.size() % 2 == 1 ? *middle : (*std::max_element(values.begin(), middle) + *middle) / 2;
}

// The time follows from the size of `given` alone, not from where it differs. Nothing equals an empty secret.
inline bool equal_in_constant_time(std::string_view given, std::string_view secret) {
  if (secret.empty()) return false;
  unsigned difference = given.size() == secret.size() ? 0 : 1;
  for (size_t idx = 0; idx < given.size(); idx++)
    difference |= static_cast<unsigned char>(given[idx] ^ secret[idx % secret.size()]);
  return difference == 0;
}

}  // namespace cachalot
