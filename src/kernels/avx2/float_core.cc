#include "kernels/avx2/tile_simd.h"
#include "kernels/cpu/float_core_loops.h"

namespace cachalot::avx2 {
namespace {

CACHALOT_INLINE inline __m256i load_bytes(const std::byte* data) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(data));
}
CACHALOT_INLINE inline __m256 load_floats(const std::byte* data) {
  return _mm256_castsi256_ps(load_bytes(data));
}

// Signed bytes [8 outputs][4 inputs] to a quad, times 2^24: a byte in the highest place of a dword needs no sign
// extension.
constexpr float kByteScale = 0x1p-24f;
CACHALOT_INLINE inline void expand_bytes(__m256i bytes, __m256* quad) {
  unroll<4>([&](auto i) CACHALOT_INLINE {
    constexpr int kFirst = decltype(i)::value * 4;
    const __m128i places =
        _mm_setr_epi8(-1, -1, -1, kFirst, -1, -1, -1, kFirst + 1, -1, -1, -1, kFirst + 2, -1, -1, -1, kFirst + 3);
    quad[i] = _mm256_cvtepi32_ps(_mm256_shuffle_epi8(bytes, _mm256_broadcastsi128_si256(places)));
  });
}

// How a format's blocks (matrix.h) become quads: the half of each that belongs to outputs 8 * unit ...
template <MatrixFormat>
struct Decoder;

template <>
struct Decoder<MatrixFormat::kF32> {
  static constexpr int kStepQuads = 1, kStepBytes = 256;  // two blocks
  const std::byte* data;
  CACHALOT_INLINE Decoder(const std::byte* block, int, int unit) : data(block + 64 * unit) {}

  CACHALOT_INLINE void expand(int64_t step, __m256* quad) const {
    const std::byte* blocks = data + step * kStepBytes;
    unroll<2>([&](auto odd) CACHALOT_INLINE {             // even and odd outputs
      const auto pairs = [&](int half) CACHALOT_INLINE {  // of outputs 4 * half ...
        const __m256d a = _mm256_castps_pd(load_floats(blocks + 32 * half)),
                      b = _mm256_castps_pd(load_floats(blocks + 128 + 32 * half));
        return _mm256_castpd_ps(odd == 0 ? _mm256_unpacklo_pd(a, b) : _mm256_unpackhi_pd(a, b));
      };
      const __m256 low = pairs(0), high = pairs(1);
      quad[odd] = _mm256_permute2f128_ps(low, high, 0x20);
      quad[odd + 2] = _mm256_permute2f128_ps(low, high, 0x31);
    });
  }
  CACHALOT_INLINE __m256 scale() const { return _mm256_set1_ps(1); }
};

template <>
struct Decoder<MatrixFormat::kBF16> {
  static constexpr int kStepQuads = 1, kStepBytes = 128;  // two blocks
  const std::byte* data;
  CACHALOT_INLINE Decoder(const std::byte* block, int, int unit) : data(block + 32 * unit) {}

  CACHALOT_INLINE void expand(int64_t step, __m256* quad) const {
    const __m256i a = load_bytes(data + step * kStepBytes), b = load_bytes(data + step * kStepBytes + 64);
    const __m256i low = _mm256_unpacklo_epi32(a, b), high = _mm256_unpackhi_epi32(a, b), zero = _mm256_setzero_si256();
    quad[0] = _mm256_castsi256_ps(_mm256_unpacklo_epi16(zero, low));
    quad[1] = _mm256_castsi256_ps(_mm256_unpackhi_epi16(zero, low));
    quad[2] = _mm256_castsi256_ps(_mm256_unpacklo_epi16(zero, high));
    quad[3] = _mm256_castsi256_ps(_mm256_unpackhi_epi16(zero, high));
  }
  CACHALOT_INLINE __m256 scale() const { return _mm256_set1_ps(1); }
};

// e4m3 becomes an fp16 of a 256th by a shift, subnormals too; the scale takes the 256 back.
template <>
struct Decoder<MatrixFormat::kF8> {
  static constexpr int kStepQuads = 1, kStepBytes = 64;
  const std::byte* data;
  CACHALOT_INLINE Decoder(const std::byte* block, int, int unit) : data(block + 32 * unit) {}

  CACHALOT_INLINE void expand(int64_t step, __m256* quad) const {
    // Outputs in an order that the unpacking below, which stays within lanes, turns into quads.
    const __m256i order = _mm256_setr_epi32(0, 4, 2, 6, 1, 5, 3, 7);
    const __m256i bytes = _mm256_permutevar8x32_epi32(load_bytes(data + step * kStepBytes), order);
    const auto halves = [&](__m256i words) CACHALOT_INLINE {  // the byte is the upper one
      return _mm256_and_si256(_mm256_srai_epi16(words, 1), _mm256_set1_epi16(static_cast<int16_t>(0xbf80)));
    };
    const __m256i low = halves(_mm256_unpacklo_epi8(_mm256_setzero_si256(), bytes));
    const __m256i high = halves(_mm256_unpackhi_epi8(_mm256_setzero_si256(), bytes));
    quad[0] = _mm256_cvtph_ps(_mm256_castsi256_si128(low));
    quad[1] = _mm256_cvtph_ps(_mm256_extracti128_si256(low, 1));
    quad[2] = _mm256_cvtph_ps(_mm256_castsi256_si128(high));
    quad[3] = _mm256_cvtph_ps(_mm256_extracti128_si256(high, 1));
  }
  CACHALOT_INLINE __m256 scale() const { return _mm256_mul_ps(load_floats(data + 2048), _mm256_set1_ps(256)); }
};

template <>
struct Decoder<MatrixFormat::kI8> {
  static constexpr int kStepQuads = 1, kStepBytes = 64;
  const std::byte* data;
  CACHALOT_INLINE Decoder(const std::byte* block, int, int unit) : data(block + 32 * unit) {}

  CACHALOT_INLINE void expand(int64_t step, __m256* quad) const {
    expand_bytes(load_bytes(data + step * kStepBytes), quad);
  }
  CACHALOT_INLINE __m256 scale() const { return _mm256_mul_ps(load_floats(data + 1024), _mm256_set1_ps(kByteScale)); }
};

template <>
struct Decoder<MatrixFormat::kI4> {
  static constexpr int kStepQuads = 2, kStepBytes = 64;
  const std::byte* data;
  const std::byte* scales;
  __m256i zeros;  // each output's, in the four bytes of its dword
  CACHALOT_INLINE Decoder(const std::byte* block, int block_inputs, int unit)
      : data(block + 32 * unit), scales(block + block_inputs * 8 + 16 * unit) {
    const std::byte* nibbles = block + block_inputs * 8 + 32;
    const __m256i words =
        _mm256_set1_epi64x(*reinterpret_cast<const int64_t __attribute__((may_alias, aligned(1)))*>(nibbles));
    const __m256i shifts = _mm256_add_epi32(_mm256_setr_epi32(0, 0, 4, 4, 8, 8, 12, 12), _mm256_set1_epi32(16 * unit));
    const __m256i dwords = _mm256_and_si256(_mm256_srlv_epi32(words, shifts), _mm256_set1_epi32(15));
    zeros = _mm256_shuffle_epi8(
        dwords, _mm256_setr_epi32(0, 0x04040404, 0x08080808, 0x0c0c0c0c, 0, 0x04040404, 0x08080808, 0x0c0c0c0c));
  }

  CACHALOT_INLINE void expand(int64_t step, __m256* quads) const {
    const __m256i bytes = load_bytes(data + step * kStepBytes), nibble = _mm256_set1_epi8(15);
    expand_bytes(_mm256_sub_epi8(_mm256_and_si256(bytes, nibble), zeros), quads);
    expand_bytes(_mm256_sub_epi8(_mm256_and_si256(_mm256_srli_epi16(bytes, 4), nibble), zeros), quads + 4);
  }
  CACHALOT_INLINE __m256 scale() const {
    return _mm256_mul_ps(_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(scales))),
                         _mm256_set1_ps(kByteScale));
  }
};

}  // namespace

void float_core(const FloatCoreArgs& args) {
  float_core_by_format<TileSimd, Decoder>(args);
}

}  // namespace cachalot::avx2
