#include "weights/random_pattern.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <cmath>
#include <cstring>

#include "base/check.h"
#include "base/numbers.h"

namespace cachalot {
namespace {

// Sebastiano Vigna's splitmix64: a counter, well mixed. The standard's distributions may differ between libraries; this
// does not.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t bits() {
    uint64_t word = state_ += 0x9e3779b97f4a7c15;
    word = (word ^ (word >> 30)) * 0xbf58476d1ce4e5b9;
    word = (word ^ (word >> 27)) * 0x94d049bb133111eb;
    return word ^ (word >> 31);
  }
  double symmetric() { return (static_cast<double>(bits() >> 11) + 0.5) * 0x1p-52 - 1; }  // (-1, 1)
  // Of either sign, magnitude 0.5 to 1.5, RMS 1.
  double signed_scale() {
    constexpr double kRms = 1.0408329997330663;  // sqrt(1 + 1/12)
    const double magnitude = (1 + symmetric() / 2) / kRms;
    return bits() & 1 ? magnitude : -magnitude;
  }

 private:
  uint64_t state_;
};

template <class T, class Draw>
std::vector<std::byte> filled(Draw draw) {
  std::vector<std::byte> bytes(RandomPatterns::kNumElements * sizeof(T));
  for (size_t idx = 0; idx < RandomPatterns::kNumElements; idx++) {
    const T element = draw();
    std::memcpy(bytes.data() + idx * sizeof(T), &element, sizeof(T));
  }
  return bytes;
}

std::vector<std::byte> make_pattern(PatternKind kind, double scale, Random random) {
  switch (kind) {
    case PatternKind::kUniform:
      return filled<bf16>([&] { return bf16(static_cast<float>(random.symmetric() * scale * std::sqrt(3.0))); });
    case PatternKind::kNorm:
      return filled<bf16>([&] { return bf16(static_cast<float>(1 + random.symmetric() * scale)); });
    // Sign, exponent field 4..7, any mantissa: no NaN and no subnormal.
    case PatternKind::kFp8:
      return filled<uint8_t>([&] { return static_cast<uint8_t>((random.bits() & 0x9f) | 0x20); });
    case PatternKind::kNibbles:
      return filled<uint32_t>([&] { return static_cast<uint32_t>(random.bits() >> 32); });
    case PatternKind::kZeroPoints:
      return filled<uint32_t>([&] { return 0x77777777u + (static_cast<uint32_t>(random.bits() >> 32) & 0x11111111u); });
    case PatternKind::kHalfScales:
      return filled<fp16>([&] { return fp16(static_cast<float>(random.signed_scale() * scale)); });
    case PatternKind::kFloatScales:
      return filled<float>([&] { return static_cast<float>(random.signed_scale() * scale); });
  }
  check_failed(__FILE__, __LINE__, "kind", "unknown value");
}

}  // namespace

size_t pattern_element_bytes(PatternKind kind) {
  switch (kind) {
    case PatternKind::kFp8:
      return 1;
    case PatternKind::kUniform:
    case PatternKind::kNorm:
    case PatternKind::kHalfScales:
      return 2;
    case PatternKind::kNibbles:
    case PatternKind::kZeroPoints:
    case PatternKind::kFloatScales:
      return 4;
  }
  check_failed(__FILE__, __LINE__, "kind", "unknown value");
}

std::span<const std::byte> RandomPatterns::get(PatternKind kind, double scale) {
  std::vector<std::byte>& pattern = patterns_[{kind, scale}];
  if (pattern.empty()) {
    const uint64_t key[2] = {static_cast<uint64_t>(kind), std::bit_cast<uint64_t>(scale)};
    pattern = make_pattern(kind, scale, Random(XXH3_64bits_withSeed(key, sizeof key, seed_)));
  }
  return pattern;
}

size_t RandomPatterns::start(std::string_view tensor_name) const {
  return XXH3_64bits_withSeed(tensor_name.data(), tensor_name.size(), seed_) % kNumElements;
}

}  // namespace cachalot
