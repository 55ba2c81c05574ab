#include "kernels/avx512/tile_simd.h"
#include "kernels/cpu/float_core_loops.h"

namespace cachalot::avx512 {
namespace {

CACHALOT_INLINE inline __m512i load_bytes(const std::byte* data) {
  return _mm512_loadu_si512(data);
}
CACHALOT_INLINE inline __m512 float_bits(__m512i x) {
  return _mm512_castsi512_ps(x);
}

// Signed bytes [16 outputs][4 inputs] to a quad, times 2^24: a byte in the highest place of a dword needs no sign
// extension.
constexpr float kByteScale = 0x1p-24f;
CACHALOT_INLINE inline void expand_bytes(__m512i bytes, __m512* quad) {
  unroll<4>([&](auto i) CACHALOT_INLINE {
    constexpr int kFirst = decltype(i)::value * 4;
    const __m128i places =
        _mm_setr_epi8(-1, -1, -1, kFirst, -1, -1, -1, kFirst + 1, -1, -1, -1, kFirst + 2, -1, -1, -1, kFirst + 3);
    quad[i] = _mm512_cvtepi32_ps(_mm512_shuffle_epi8(bytes, _mm512_broadcast_i32x4(places)));
  });
}

// How a format's blocks (matrix.h) become quads.
template <MatrixFormat>
struct Decoder;

template <>
struct Decoder<MatrixFormat::kF32> {
  static constexpr int kStepQuads = 1, kStepBytes = 256;  // two blocks
  const std::byte* data;
  CACHALOT_INLINE Decoder(const std::byte* block, int, int) : data(block) {}

  CACHALOT_INLINE void expand(int64_t step, __m512* quad) const {
    const std::byte* blocks = data + step * kStepBytes;
    unroll<2>([&](auto odd) CACHALOT_INLINE {             // even and odd outputs
      const auto pairs = [&](int half) CACHALOT_INLINE {  // of outputs 8 * half ...
        const __m512d a = _mm512_castsi512_pd(load_bytes(blocks + 64 * half)),
                      b = _mm512_castsi512_pd(load_bytes(blocks + 128 + 64 * half));
        return _mm512_castpd_ps(odd == 0 ? _mm512_unpacklo_pd(a, b) : _mm512_unpackhi_pd(a, b));
      };
      const __m512 low = pairs(0), high = pairs(1);
      quad[odd] = _mm512_shuffle_f32x4(low, high, 0x88);
      quad[odd + 2] = _mm512_shuffle_f32x4(low, high, 0xdd);
    });
  }
  CACHALOT_INLINE __m512 scale() const { return _mm512_set1_ps(1); }
};

template <>
struct Decoder<MatrixFormat::kBF16> {
  static constexpr int kStepQuads = 1, kStepBytes = 128;  // two blocks
  const std::byte* data;
  CACHALOT_INLINE Decoder(const std::byte* block, int, int) : data(block) {}

  CACHALOT_INLINE void expand(int64_t step, __m512* quad) const {
    const __m512i a = load_bytes(data + step * kStepBytes), b = load_bytes(data + step * kStepBytes + 64);
    const __m512i low = _mm512_unpacklo_epi32(a, b), high = _mm512_unpackhi_epi32(a, b), zero = _mm512_setzero_si512();
    quad[0] = float_bits(_mm512_unpacklo_epi16(zero, low));
    quad[1] = float_bits(_mm512_unpackhi_epi16(zero, low));
    quad[2] = float_bits(_mm512_unpacklo_epi16(zero, high));
    quad[3] = float_bits(_mm512_unpackhi_epi16(zero, high));
  }
  CACHALOT_INLINE __m512 scale() const { return _mm512_set1_ps(1); }
};

// e4m3 becomes an fp16 of a 256th by a shift, subnormals too; the scale takes the 256 back.
template <>
struct Decoder<MatrixFormat::kF8> {
  static constexpr int kStepQuads = 1, kStepBytes = 64;
  const std::byte* data;
  CACHALOT_INLINE Decoder(const std::byte* block, int, int) : data(block) {}

  CACHALOT_INLINE void expand(int64_t step, __m512* quad) const {
    // Outputs in an order that the unpacking below, which stays within lanes, turns into quads.
    const __m512i order = _mm512_setr_epi32(0, 4, 2, 6, 8, 12, 10, 14, 1, 5, 3, 7, 9, 13, 11, 15);
    const __m512i bytes = _mm512_permutexvar_epi32(order, load_bytes(data + step * kStepBytes));
    const auto halves = [&](__m512i words) CACHALOT_INLINE {  // the byte is the upper one
      return _mm512_and_si512(_mm512_srai_epi16(words, 1), _mm512_set1_epi16(static_cast<int16_t>(0xbf80)));
    };
    const __m512i low = halves(_mm512_unpacklo_epi8(_mm512_setzero_si512(), bytes));
    const __m512i high = halves(_mm512_unpackhi_epi8(_mm512_setzero_si512(), bytes));
    quad[0] = _mm512_cvtph_ps(_mm512_castsi512_si256(low));
    quad[1] = _mm512_cvtph_ps(_mm512_extracti64x4_epi64(low, 1));
    quad[2] = _mm512_cvtph_ps(_mm512_castsi512_si256(high));
    quad[3] = _mm512_cvtph_ps(_mm512_extracti64x4_epi64(high, 1));
  }
  CACHALOT_INLINE __m512 scale() const {
    return _mm512_mul_ps(float_bits(load_bytes(data + 2048)), _mm512_set1_ps(256));
  }
};

template <>
struct Decoder<MatrixFormat::kI8> {
  static constexpr int kStepQuads = 1, kStepBytes = 64;
  const std::byte* data;
  CACHALOT_INLINE Decoder(const std::byte* block, int, int) : data(block) {}

  CACHALOT_INLINE void expand(int64_t step, __m512* quad) const {
    expand_bytes(load_bytes(data + step * kStepBytes), quad);
  }
  CACHALOT_INLINE __m512 scale() const {
    return _mm512_mul_ps(float_bits(load_bytes(data + 1024)), _mm512_set1_ps(kByteScale));
  }
};

template <>
struct Decoder<MatrixFormat::kI4> {
  static constexpr int kStepQuads = 2, kStepBytes = 64;
  const std::byte* data;
  const std::byte* scales;
  __m512i zeros;  // each output's, in the four bytes of its dword
  CACHALOT_INLINE Decoder(const std::byte* block, int block_inputs, int)
      : data(block), scales(block + block_inputs * 8) {
    const __m512i nibbles =
        _mm512_set1_epi64(*reinterpret_cast<const int64_t __attribute__((may_alias, aligned(1)))*>(scales + 32));
    const __m512i shifts = _mm512_setr_epi32(0, 0, 4, 4, 8, 8, 12, 12, 16, 16, 20, 20, 24, 24, 28, 28);
    const __m512i dwords = _mm512_and_si512(_mm512_srlv_epi32(nibbles, shifts), _mm512_set1_epi32(15));
    zeros = _mm512_shuffle_epi8(dwords, _mm512_set4_epi32(0x0c0c0c0c, 0x08080808, 0x04040404, 0));
  }

  CACHALOT_INLINE void expand(int64_t step, __m512* quads) const {
    const __m512i bytes = load_bytes(data + step * kStepBytes), nibble = _mm512_set1_epi8(15);
    expand_bytes(_mm512_sub_epi8(_mm512_and_si512(bytes, nibble), zeros), quads);
    expand_bytes(_mm512_sub_epi8(_mm512_and_si512(_mm512_srli_epi16(bytes, 4), nibble), zeros), quads + 4);
  }
  CACHALOT_INLINE __m512 scale() const {
    const __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(scales));
    return _mm512_mul_ps(_mm512_cvtph_ps(halves), _mm512_set1_ps(kByteScale));
  }
};

}  // namespace

void float_core(const FloatCoreArgs& args) {
  float_core_by_format<TileSimd, Decoder>(args);
}

}  // namespace cachalot::avx512
