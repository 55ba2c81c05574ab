#pragma once

#include <bit>
#include <cstdint>

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
