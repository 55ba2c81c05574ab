#pragma once

#include <cstdint>

#include "base/math.h"
#include "kernels/cores.h"
#include "kernels/cpu/float_core_loops.h"
#include "kernels/cpu/int_records.h"
#include "kernels/cpu/row_cores_impl.h"
#include "tensor/dtype.h"

// How the blocks of each format (matrix.h) become quads (float_core_loops.h), written once over a level's vectors, its
// TileSimd (simd.h): of each block the part that belongs to outputs kWidth * unit ... of the strip.
namespace cachalot {
namespace {

template <class S, MatrixFormat>
struct Decoder;

// Where a unit's part of some bytes an output begins; nowhere but at 0 if a unit is the whole strip.
template <class S>
CACHALOT_INLINE inline int64_t part_of_unit(int unit, int bytes_of_output) {
  return S::kWidth == kStrip ? 0 : bytes_of_output * S::kWidth * unit;
}

// Signed bytes [kWidth outputs][4 inputs] to a quad, times 2^24: a byte in the highest place of a dword needs no sign
// extension.
inline constexpr float kByteScale = 0x1p-24f;
template <class S>
CACHALOT_INLINE inline void expand_bytes(typename S::Ints bytes, typename S::Floats* quad) {
  unroll<4>([&](auto i) CACHALOT_INLINE {
    constexpr int kFirst = decltype(i)::value * 4;
    const __m128i places =
        _mm_setr_epi8(-1, -1, -1, kFirst, -1, -1, -1, kFirst + 1, -1, -1, -1, kFirst + 2, -1, -1, -1, kFirst + 3);
    quad[i] = S::to_floats(S::shuffle_bytes(bytes, S::set_lanes(places)));
  });
}

template <class S>
struct Decoder<S, MatrixFormat::kF32> {
  using Floats = typename S::Floats;
  static constexpr int kStepQuads = 1, kStepBytes = 256;  // two blocks
  const std::byte* data;
  CACHALOT_INLINE Decoder(const std::byte* block, int, int unit) : data(block + part_of_unit<S>(unit, 8)) {}

  CACHALOT_INLINE void expand(int64_t step, Floats* quad) const {
    const std::byte* blocks = data + step * kStepBytes;
    unroll<2>([&](auto odd) CACHALOT_INLINE {             // even and odd outputs
      const auto pairs = [&](int half) CACHALOT_INLINE {  // of outputs kWidth / 2 * half ...
        const Floats a = S::bits(S::load_ints(blocks + 4 * S::kWidth * half)),
                     b = S::bits(S::load_ints(blocks + 128 + 4 * S::kWidth * half));
        return odd == 0 ? S::unpack_low_pairs(a, b) : S::unpack_high_pairs(a, b);
      };
      const Floats low = pairs(0), high = pairs(1);
      quad[odd] = S::even_lanes(low, high);
      quad[odd + 2] = S::odd_lanes(low, high);
    });
  }
  CACHALOT_INLINE Floats scale() const { return S::set(1); }
};

template <class S>
struct Decoder<S, MatrixFormat::kBF16> {
  using Ints = typename S::Ints;
  static constexpr int kStepQuads = 1, kStepBytes = 128;  // two blocks
  const std::byte* data;
  CACHALOT_INLINE Decoder(const std::byte* block, int, int unit) : data(block + part_of_unit<S>(unit, 4)) {}

  CACHALOT_INLINE void expand(int64_t step, typename S::Floats* quad) const {
    const Ints a = S::load_ints(data + step * kStepBytes), b = S::load_ints(data + step * kStepBytes + 64);
    const Ints low = S::unpack_low_dwords(a, b), high = S::unpack_high_dwords(a, b), zero = S::zero_bits();
    quad[0] = S::bits(S::unpack_low_words(zero, low));
    quad[1] = S::bits(S::unpack_high_words(zero, low));
    quad[2] = S::bits(S::unpack_low_words(zero, high));
    quad[3] = S::bits(S::unpack_high_words(zero, high));
  }
  CACHALOT_INLINE typename S::Floats scale() const { return S::set(1); }
};

// fp16 [kWidth outputs][4 inputs], in two vectors of words as bytes that are ordered for it unpack, to a quad.
template <class S>
CACHALOT_INLINE inline void expand_halves(typename S::Ints low, typename S::Ints high, typename S::Floats* quad) {
  quad[0] = S::low_halves(low);
  quad[1] = S::high_halves(low);
  quad[2] = S::low_halves(high);
  quad[3] = S::high_halves(high);
}

// e4m3 becomes an fp16 of a 256th by a shift, subnormals too; the scale takes the 256 back.
template <class S>
struct Decoder<S, MatrixFormat::kF8> {
  using Ints = typename S::Ints;
  static constexpr int kStepQuads = 1, kStepBytes = 64;
  const std::byte* data;
  CACHALOT_INLINE Decoder(const std::byte* block, int, int unit) : data(block + part_of_unit<S>(unit, 4)) {}

  CACHALOT_INLINE void expand(int64_t step, typename S::Floats* quad) const {
    const Ints bytes = S::ordered_for_unpacking(S::load_ints(data + step * kStepBytes));
    const auto halves = [&](Ints words) CACHALOT_INLINE {  // the byte is the upper one
      return S::shift_signed_words_right(words, 1) & S::set_words(static_cast<int16_t>(0xbf80));
    };
    expand_halves<S>(halves(S::unpack_low_bytes(S::zero_bits(), bytes)),
                     halves(S::unpack_high_bytes(S::zero_bits(), bytes)), quad);
  }
  CACHALOT_INLINE typename S::Floats scale() const { return S::bits(S::load_ints(data + 2048)) * S::set(256); }
};

template <class S>
struct Decoder<S, MatrixFormat::kI8> {
  static constexpr int kStepQuads = 1, kStepBytes = 64;
  const std::byte* data;
  CACHALOT_INLINE Decoder(const std::byte* block, int, int unit) : data(block + part_of_unit<S>(unit, 4)) {}

  CACHALOT_INLINE void expand(int64_t step, typename S::Floats* quad) const {
    expand_bytes<S>(S::load_ints(data + step * kStepBytes), quad);
  }
  CACHALOT_INLINE typename S::Floats scale() const { return S::bits(S::load_ints(data + 1024)) * S::set(kByteScale); }
};

template <class S>
struct Decoder<S, MatrixFormat::kI4> {
  using Ints = typename S::Ints;
  static constexpr int kStepQuads = 2, kStepBytes = 64;
  const std::byte* data;
  const std::byte* scales;
  Ints zeros;  // each output's, in the four bytes of its dword
  CACHALOT_INLINE Decoder(const std::byte* block, int block_inputs, int unit)
      : data(block + part_of_unit<S>(unit, 4)), scales(block + block_inputs * 8 + part_of_unit<S>(unit, 2)) {
    const std::byte* nibbles = block + block_inputs * 8 + 32;
    const Ints words = S::set_qwords(*reinterpret_cast<const int64_t __attribute__((may_alias, aligned(1)))*>(nibbles));
    const Ints dwords = S::shift_dwords_right(words, S::nibble_shifts(unit)) & S::set_dwords(15);
    zeros = S::shuffle_bytes(dwords, S::set_lanes(_mm_setr_epi32(0, 0x04040404, 0x08080808, 0x0c0c0c0c)));
  }

  CACHALOT_INLINE void expand(int64_t step, typename S::Floats* quads) const {
    const Ints bytes = S::load_ints(data + step * kStepBytes), nibble = S::set_bytes(15);
    expand_bytes<S>(S::sub_bytes(bytes & nibble, zeros), quads);
    expand_bytes<S>(S::sub_bytes(S::shift_words_right(bytes, 4) & nibble, zeros), quads + 4);
  }
  CACHALOT_INLINE typename S::Floats scale() const { return S::load_halves(scales) * S::set(kByteScale); }
};

// Scales are too large for the product to be subnormal (matrix.h).
template <class S>
struct Decoder<S, MatrixFormat::kI4Bf16> : Decoder<S, MatrixFormat::kI4> {
  using Decoder<S, MatrixFormat::kI4>::Decoder;
  CACHALOT_INLINE typename S::Floats scale() const { return S::load_bf16(this->scales) * S::set(kByteScale); }
};

// The upper bytes of kE2m1Doubled as fp16, whose lower bytes are zero.
constexpr int8_t kF4Halves[16] = {0x00, 0x3c,  0x40,  0x42,  0x44,  0x46,  0x48,  0x4a,
                                  0x00, -0x44, -0x40, -0x3e, -0x3c, -0x3a, -0x38, -0x36};

template <class S>
struct Decoder<S, MatrixFormat::kF4> {
  using Ints = typename S::Ints;
  static constexpr int kStepQuads = 2, kStepBytes = 64;
  const std::byte* data;
  const std::byte* scales;
  CACHALOT_INLINE Decoder(const std::byte* block, int block_inputs, int unit)
      : data(block + part_of_unit<S>(unit, 4)), scales(block + block_inputs * 8 + part_of_unit<S>(unit, 2)) {}

  CACHALOT_INLINE void expand(int64_t step, typename S::Floats* quads) const {
    const Ints bytes = S::ordered_for_unpacking(S::load_ints(data + step * kStepBytes)), nibble = S::set_bytes(15);
    expand_codes(bytes & nibble, quads);
    expand_codes(S::shift_words_right(bytes, 4) & nibble, quads + 4);
  }
  CACHALOT_INLINE typename S::Floats scale() const { return S::load_bf16(scales); }

 private:
  CACHALOT_INLINE static void expand_codes(Ints codes, typename S::Floats* quad) {
    const Ints table = S::set_lanes(_mm_loadu_si128(reinterpret_cast<const __m128i*>(kF4Halves)));
    const Ints halves = S::shuffle_bytes(table, codes), zero = S::zero_bits();
    expand_halves<S>(S::unpack_low_bytes(zero, halves), S::unpack_high_bytes(zero, halves), quad);
  }
};

// LinearCores written once over a level's vectors, its Simd and TileSimd (simd.h), but for the integer core. Included
// by one file of each level, and of internal linkage, as cpu/row_cores_impl.h.

template <class T>
void float_core(const FloatCoreArgs& args) {
  constexpr FloatCore kOfFormat[] = {
      FloatCoreLoops<T, Decoder<T, MatrixFormat::kF32>>::run, FloatCoreLoops<T, Decoder<T, MatrixFormat::kBF16>>::run,
      FloatCoreLoops<T, Decoder<T, MatrixFormat::kF8>>::run,  FloatCoreLoops<T, Decoder<T, MatrixFormat::kI8>>::run,
      FloatCoreLoops<T, Decoder<T, MatrixFormat::kI4>>::run,  FloatCoreLoops<T, Decoder<T, MatrixFormat::kI4Bf16>>::run,
      FloatCoreLoops<T, Decoder<T, MatrixFormat::kF4>>::run};
  kOfFormat[static_cast<size_t>(args.matrix.shape.format)](args);
}

template <class S>
void silu_product(float* gate, const float* up, int64_t stride, int64_t num_rows) {
  using Floats = typename S::Floats;
  const typename S::Whole whole{};
  for (int64_t row = 0; row < num_rows; row++, gate += stride, up += stride) {
    for (int column = 0; column < kStrip; column += S::kLanes) {
      const Floats x = S::load(gate + column, whole);
      const Floats e = S::exp_nonpositive(S::zero() - S::abs(x));
      const Floats silu = x * S::select_negative(x, e, S::set(1.f)) / (S::set(1.f) + e);
      S::store(gate + column, whole, silu * S::load(up + column, whole));
    }
  }
}

template <class S>
void store_bf16(const float* tile, int64_t stride, int64_t num_rows, bf16* out, int64_t out_stride) {
  const typename S::Whole whole{};
  for (int64_t row = 0; row < num_rows; row++, tile += stride, out += out_stride) {
    for (int column = 0; column < kStrip; column += S::kLanes)
      S::store(out + column, whole, S::load(tile + column, whole));
  }
}

template <class S, class T, const IntCore& kIntCore>
constexpr LinearCores linear_cores() {
  return {.float_core = float_core<T>,
          .int_core = &kIntCore,
          .quantize = quantize<S>,
          .silu_product = silu_product<S>,
          .store_bf16 = store_bf16<S>};
}

// LimitCores written once over a level's vectors, its TileSimd (simd.h). Included by one file of each level, and of
// internal linkage, as cpu/row_cores_impl.h. What the compiler may not leave out does not stand in the lambdas: clang
// refuses assembly on what they capture.

template <class S>
void read_streams(const std::byte* first, const std::byte* second, size_t bytes) {
  using Ints = typename S::Ints;
  constexpr size_t kAhead = 2048, kAtOnce = 2 * sizeof(Ints);
  Ints sums = S::zero_bits();
  for (size_t idx = 0; idx < bytes; idx += kAtOnce) {
    for (const std::byte* stream : {first, second}) {
      for (size_t line = 0; line < kAtOnce; line += 64) S::prefetch(stream + idx + kAhead + line);
      const std::byte* vectors = stream + idx;
      sums = sums ^ (S::load_ints(vectors) ^ S::load_ints(vectors + sizeof(Ints)));
    }
  }
  S::keep(sums);
}

template <class S>
void multiply_bytes(int64_t rounds) {
  typename S::Ints sums[S::kChains], x = S::set_bytes(1);
  unroll<S::kChains>([&](auto i) CACHALOT_INLINE { sums[i] = S::set_dwords(i); });
  for (int64_t round = 0; round < rounds; round++)
    unroll<S::kChains>([&](auto i) CACHALOT_INLINE { S::multiply_bytes(sums[i], x); });
  unroll<S::kChains>([&](auto i) CACHALOT_INLINE { S::keep(sums[i]); });
}

template <class S>
void multiply_floats(int64_t rounds) {
  typename S::Floats sums[S::kChains], x = S::set(1);
  unroll<S::kChains>([&](auto i) CACHALOT_INLINE { sums[i] = S::set(i); });
  for (int64_t round = 0; round < rounds; round++)
    unroll<S::kChains>([&](auto i) CACHALOT_INLINE { S::multiply_floats(sums[i], x); });
  unroll<S::kChains>([&](auto i) CACHALOT_INLINE { S::keep(sums[i]); });
}

template <class S>
constexpr LimitCores limit_cores() {
  return {.read = read_streams<S>,
          .multiply_int8 = multiply_bytes<S>,
          .multiply_floats = multiply_floats<S>,
          .int8_operations = S::kChains * S::kByteOperations,
          .float_operations = S::kChains * S::kWidth * 2};
}

}  // namespace
}  // namespace cachalot
