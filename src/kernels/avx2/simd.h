#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "kernels/cores.h"
#include "tensor/dtype.h"

// What code that is written once for several levels (cpu/*_impl.h, cpu/*_loops.h) needs of AVX2.
namespace cachalot::avx2 {

// Rows of any length, and everything that is done to their elements but + - * /, which the vectors have themselves.
struct Simd {
  using Floats = __m256;
  static constexpr int kLanes = 8;

  // A full vector, or the first `count` lanes at the end of a row; loading gives zero in the others.
  struct Whole {};
  struct Tail {
    explicit Tail(int64_t count) : count(static_cast<int>(count)) {}
    int count;
  };

  CACHALOT_INLINE static Floats zero() { return _mm256_setzero_ps(); }
  CACHALOT_INLINE static Floats set(float x) { return _mm256_set1_ps(x); }

  static Floats load(const float* p, Whole) { return _mm256_loadu_ps(p); }
  static Floats load(const float* p, Tail tail) { return _mm256_maskload_ps(p, mask(tail)); }
  static Floats load_or(const float* p, Whole whole, Floats) { return load(p, whole); }
  static Floats load_or(const float* p, Tail tail, Floats others) {
    return _mm256_blendv_ps(others, load(p, tail), _mm256_castsi256_ps(mask(tail)));
  }
  static void store(float* p, Whole, Floats x) { _mm256_storeu_ps(p, x); }
  static void store(float* p, Tail tail, Floats x) { _mm256_maskstore_ps(p, mask(tail), x); }

  static Floats load(const bf16* p, Whole) { return from_bf16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
  static Floats load(const bf16* p, Tail tail) { return from_bf16(load_words(p, tail)); }
  static void store(bf16* p, Whole, Floats x) { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), to_bf16(x)); }
  static void store(bf16* p, Tail tail, Floats x) {
    uint16_t words[8];
    _mm_storeu_si128(reinterpret_cast<__m128i*>(words), to_bf16(x));
    for (int i = 0; i < tail.count; i++) p[i].bits = words[i];
  }

  static Floats load(const fp16* p, Whole) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  static Floats load(const fp16* p, Tail tail) { return _mm256_cvtph_ps(load_words(p, tail)); }

  CACHALOT_INLINE static void prefetch(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0); }

  // Rounded to nearest, ties to even; must fit.
  static void store(int8_t* p, Whole, Floats x) { _mm_storel_epi64(reinterpret_cast<__m128i*>(p), to_int8(x)); }
  static void store(int8_t* p, Tail tail, Floats x) {
    int8_t bytes[16];
    _mm_storeu_si128(reinterpret_cast<__m128i*>(bytes), to_int8(x));
    for (int i = 0; i < tail.count; i++) p[i] = bytes[i];
  }

  CACHALOT_INLINE static Floats fma(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }
  static Floats min(Floats a, Floats b) { return _mm256_min_ps(a, b); }
  static Floats max(Floats a, Floats b) { return _mm256_max_ps(a, b); }  // b where one of them is NaN
  // Of numbers without a sign: NaN where one of them is, since its bits are above all others.
  static Floats max_bits(Floats a, Floats b) {
    return _mm256_castsi256_ps(_mm256_max_epi32(_mm256_castps_si256(a), _mm256_castps_si256(b)));
  }
  static Floats abs(Floats a) { return _mm256_andnot_ps(set(-0.f), a); }
  static Floats select_negative(Floats x, Floats a, Floats b) {  // a where x < 0, else b
    return _mm256_blendv_ps(b, a, _mm256_cmp_ps(x, zero(), _CMP_LT_OQ));
  }
  static Floats replace(Floats x, Floats value, Floats by) {
    return _mm256_blendv_ps(x, by, _mm256_cmp_ps(x, value, _CMP_EQ_OQ));
  }
  static unsigned equal(Floats a, Floats b) {  // a bit a lane
    return static_cast<unsigned>(_mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_EQ_OQ)));
  }

  // Added by halves: lane i and i + 4, then of those i and i + 2, ...
  static float sum(Floats x) {
    __m128 half = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    half = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
  }
  static float max(Floats x) {
    __m128 half = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    half = _mm_max_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_max_ss(half, _mm_movehdup_ps(half)));
  }

  // (0, 1, 2, ...) -> (1, 0, 3, 2, ...); (p[0], p[0], p[1], p[1], ...); the even lanes negated.
  static Floats swap_pairs(Floats x) { return _mm256_permute_ps(x, 0xb1); }
  static Floats load_doubled(const float* p, Whole) { return doubled(_mm256_castps128_ps256(_mm_loadu_ps(p))); }
  static Floats load_doubled(const float* p, Tail tail) { return doubled(load(p, Tail(tail.count / 2))); }
  static Floats negate_even(Floats x) { return _mm256_xor_ps(x, _mm256_castsi256_ps(_mm256_set1_epi64x(0x80000000))); }

  // The exponential of kernels/cores.h, for x <= 0; NaN stays.
  static Floats exp_nonpositive(Floats x) {
    const Floats keep = _mm256_cmp_ps(x, set(kExpLowest), _CMP_NLT_UQ);
    const Floats n = _mm256_round_ps(x * set(kLog2E), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const Floats r = fma(n, set(-kLn2Low), fma(n, set(-kLn2High), x));
    Floats p = set(kExpTaylor[0]);
#pragma GCC unroll 8
    for (int degree = 1; degree < 8; degree++) p = fma(p, r, set(kExpTaylor[degree]));
    const __m256i exponent = _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23);
    return _mm256_and_ps(keep, _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), exponent)));
  }

 private:
  static __m256i mask(Tail tail) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(tail.count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }
  template <class Word>
  static __m128i load_words(const Word* p, Tail tail) {
    uint16_t words[8] = {};
    for (int i = 0; i < tail.count; i++) words[i] = p[i].bits;
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(words));
  }
  static Floats doubled(Floats x) { return _mm256_permutevar8x32_ps(x, _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3)); }
  static Floats from_bf16(__m128i bits) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
  }
  // As the constructor of bf16 rounds, NaN included.
  static __m128i to_bf16(Floats x) {
    const __m256i bits = _mm256_castps_si256(x), high = _mm256_srli_epi32(bits, 16);
    const __m256i odd = _mm256_and_si256(high, _mm256_set1_epi32(1));
    const __m256i rounded =
        _mm256_srli_epi32(_mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff))), 16);
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    const __m256i words = _mm256_blendv_epi8(rounded, _mm256_or_si256(high, _mm256_set1_epi32(0x40)), nan);
    return _mm_packus_epi32(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
  }
  static __m128i to_int8(Floats x) {
    const __m256i words = _mm256_cvtps_epi32(x);
    const __m128i shorts = _mm_packs_epi32(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
    return _mm_packs_epi16(shorts, shorts);
  }
};

// Register tiles over whole vectors. Unnamed, so that their code stays in each file.
namespace {

struct TileSimd : Simd {
  static constexpr int kWidth = 8;
  static constexpr int kTwoUnitRows = 1;  // float_core: rows with which two units are worked on at a time, 8 sums a row
  static constexpr int kStreamRows = 2;   // float_core: rows that share a pass over the weights
  static constexpr int kPanelRows = 3;    // float_core: rows of a tile over an expanded panel, 4 sums each
  static constexpr int kAttentionRows = 6;  // rows of a tile of attention, 2 sums each

  CACHALOT_INLINE static Floats load(const float* data) { return _mm256_loadu_ps(data); }
  CACHALOT_INLINE static void store(float* data, Floats x) { _mm256_storeu_ps(data, x); }
  // Four floats to every 128-bit lane.
  CACHALOT_INLINE static Floats broadcast_quad(const float* data) {
    return _mm256_broadcast_ps(reinterpret_cast<const __m128*>(data));
  }

  CACHALOT_INLINE static Floats unpack_low(Floats a, Floats b) { return _mm256_unpacklo_ps(a, b); }
  CACHALOT_INLINE static Floats unpack_high(Floats a, Floats b) { return _mm256_unpackhi_ps(a, b); }
  CACHALOT_INLINE static Floats unpack_low_pairs(Floats a, Floats b) {
    return _mm256_castpd_ps(_mm256_unpacklo_pd(_mm256_castps_pd(a), _mm256_castps_pd(b)));
  }
  CACHALOT_INLINE static Floats unpack_high_pairs(Floats a, Floats b) {
    return _mm256_castpd_ps(_mm256_unpackhi_pd(_mm256_castps_pd(a), _mm256_castps_pd(b)));
  }

  // 16 bytes of rows[0] and rows[4], a lane each.
  CACHALOT_INLINE static Floats load_lanes(const std::byte* const* rows, int64_t byte) {
    const auto lane = [&](int row)
                          CACHALOT_INLINE { return _mm_loadu_ps(reinterpret_cast<const float*>(rows[row] + byte)); };
    return _mm256_insertf128_ps(_mm256_castps128_ps256(lane(0)), lane(4), 1);
  }
  // Of every pair of bf16, the first and the second.
  CACHALOT_INLINE static Floats first_bf16(Floats pairs) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(pairs), 16));
  }
  CACHALOT_INLINE static Floats second_bf16(Floats pairs) {
    return _mm256_castsi256_ps(_mm256_and_si256(_mm256_castps_si256(pairs), _mm256_set1_epi32(-0x10000)));
  }

  // ---- integers ----

  using Ints = __m256i;
  CACHALOT_INLINE static Ints load_ints(const std::byte* data) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(data));
  }
  CACHALOT_INLINE static Ints zero_bits() { return _mm256_setzero_si256(); }
  CACHALOT_INLINE static Ints set_bytes(int8_t byte) { return _mm256_set1_epi8(byte); }
  CACHALOT_INLINE static Ints set_words(int16_t word) { return _mm256_set1_epi16(word); }
  CACHALOT_INLINE static Ints set_dwords(int32_t dword) { return _mm256_set1_epi32(dword); }
  CACHALOT_INLINE static Ints set_lanes(__m128i lane) { return _mm256_broadcastsi128_si256(lane); }
  CACHALOT_INLINE static Ints set_qwords(int64_t qword) { return _mm256_set1_epi64x(qword); }
  CACHALOT_INLINE static Ints sub_bytes(Ints a, Ints b) { return _mm256_sub_epi8(a, b); }
  CACHALOT_INLINE static Ints shift_words_right(Ints x, int bits) { return _mm256_srli_epi16(x, bits); }
  CACHALOT_INLINE static Ints shift_signed_words_right(Ints x, int bits) { return _mm256_srai_epi16(x, bits); }
  CACHALOT_INLINE static Ints shift_dwords_right(Ints x, Ints bits) { return _mm256_srlv_epi32(x, bits); }
  CACHALOT_INLINE static Ints shuffle_bytes(Ints x, Ints places) { return _mm256_shuffle_epi8(x, places); }
  CACHALOT_INLINE static Ints unpack_low_bytes(Ints a, Ints b) { return _mm256_unpacklo_epi8(a, b); }
  CACHALOT_INLINE static Ints unpack_high_bytes(Ints a, Ints b) { return _mm256_unpackhi_epi8(a, b); }
  CACHALOT_INLINE static Ints unpack_low_words(Ints a, Ints b) { return _mm256_unpacklo_epi16(a, b); }
  CACHALOT_INLINE static Ints unpack_high_words(Ints a, Ints b) { return _mm256_unpackhi_epi16(a, b); }
  CACHALOT_INLINE static Ints unpack_low_dwords(Ints a, Ints b) { return _mm256_unpacklo_epi32(a, b); }
  CACHALOT_INLINE static Ints unpack_high_dwords(Ints a, Ints b) { return _mm256_unpackhi_epi32(a, b); }
  CACHALOT_INLINE static Floats bits(Ints x) { return _mm256_castsi256_ps(x); }
  CACHALOT_INLINE static Floats to_floats(Ints x) { return _mm256_cvtepi32_ps(x); }

  // ---- decoders of weights (cpu/float_core_loops.h) ----

  CACHALOT_INLINE static Floats load_halves(const std::byte* data) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(data)));
  }
  CACHALOT_INLINE static Floats load_bf16(const std::byte* data) {
    const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(data));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
  }
  CACHALOT_INLINE static Floats low_halves(Ints x) { return _mm256_cvtph_ps(_mm256_castsi256_si128(x)); }
  CACHALOT_INLINE static Floats high_halves(Ints x) { return _mm256_cvtph_ps(_mm256_extracti128_si256(x, 1)); }
  // The even 128-bit lanes of a, then b's; the odd ones.
  CACHALOT_INLINE static Floats even_lanes(Floats a, Floats b) { return _mm256_permute2f128_ps(a, b, 0x20); }
  CACHALOT_INLINE static Floats odd_lanes(Floats a, Floats b) { return _mm256_permute2f128_ps(a, b, 0x31); }
  // Dwords in an order that unpacking bytes, which stays within lanes, turns into quads.
  CACHALOT_INLINE static Ints ordered_for_unpacking(Ints x) {
    return _mm256_permutevar8x32_epi32(x, _mm256_setr_epi32(0, 4, 2, 6, 1, 5, 3, 7));
  }
  // Where in a qword of a strip's zero points an output's nibble begins.
  CACHALOT_INLINE static Ints nibble_shifts(int unit) {
    return _mm256_add_epi32(_mm256_setr_epi32(0, 0, 4, 4, 8, 8, 12, 12), _mm256_set1_epi32(16 * unit));
  }

  // ---- measurements (cpu/limits.h): what the compiler may not leave out ----

  static constexpr int kChains = 10;  // sums that run side by side
  static constexpr int kByteOperations = 64;
  // Products of bytes to sums of 16 bits, two of them at a time; what widens them to 32 bits is not counted.
  CACHALOT_INLINE static void multiply_bytes(Ints& sums, Ints x) {
    Ints product;
    asm volatile("vpmaddubsw %1,%1,%0" : "=x"(product) : "x"(x));
    sums = _mm256_add_epi16(sums, product);
  }
  CACHALOT_INLINE static void multiply_floats(Floats& sum, Floats x) {
    asm volatile("vfmadd231ps %1,%1,%0" : "+x"(sum) : "x"(x));
  }
  template <class Vector>
  CACHALOT_INLINE static void keep(Vector vector) {
    asm volatile("" ::"x"(vector));
  }
};

}  // namespace
}  // namespace cachalot::avx2
