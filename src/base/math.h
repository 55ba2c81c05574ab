#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
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

// Logarithm, power, sine and cosine with the same bits on every machine. The C library's functions have variants by CPU
// and by version, which differ in last places; these are additions, multiplications and divisions of doubles in a fixed
// order, never contracted, and numbers of a step follow from no others (tests/exact_math_test.sh).
namespace cachalot::portable {

// Within 0.501 ulp. NaN of negative numbers and NaN, -inf of 0, inf of inf.
double log(double x);

// x to the power y, for x > 0 (NaN else), within 0.501 ulp (1.5 of results below 2^-1022).
double pow(double x, double y);

// Within 0.8 ulp for |x| <= 2^32; NaN beyond.
struct SinCos {
  double sin, cos;
};
SinCos sin_cos(double x);

// Of numbers by their bits (FNV-1a, a word at a time): machines that compute the same have the same one.
class BitHash {
 public:
  void add(uint64_t word) { value_ = (value_ ^ word) * 0x100000001b3; }
  void add(double number) { add(std::bit_cast<uint64_t>(number)); }
  uint64_t value() const { return value_; }

 private:
  uint64_t value_ = 0xcbf29ce484222325;
};

}  // namespace cachalot::portable
