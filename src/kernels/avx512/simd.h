#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "kernels/cores.h"
#include "tensor/dtype.h"

// What code that is written once for several levels (cpu/*_impl.h, cpu/*_loops.h) needs of AVX-512.
namespace cachalot::avx512 {

// Rows of any length, and everything that is done to their elements but + - * /, which the vectors have themselves.
struct Simd {
  using Floats = __m512;
  static constexpr int kLanes = 16;

  // A full vector, or the first `count` lanes at the end of a row; loading gives zero in the others.
  struct Whole {};
  struct Tail {
    explicit Tail(int64_t count) : count(static_cast<int>(count)), mask(static_cast<__mmask16>((1u << count) - 1)) {}
    int count;
    __mmask16 mask;
  };

  CACHALOT_INLINE static Floats zero() { return _mm512_setzero_ps(); }
  CACHALOT_INLINE static Floats set(float x) { return _mm512_set1_ps(x); }

  static Floats load(const float* p, Whole) { return _mm512_loadu_ps(p); }
  static Floats load(const float* p, Tail tail) { return _mm512_maskz_loadu_ps(tail.mask, p); }
  static Floats load_or(const float* p, Whole whole, Floats) { return load(p, whole); }
  static Floats load_or(const float* p, Tail tail, Floats others) { return _mm512_mask_loadu_ps(others, tail.mask, p); }
  static void store(float* p, Whole, Floats x) { _mm512_storeu_ps(p, x); }
  static void store(float* p, Tail tail, Floats x) { _mm512_mask_storeu_ps(p, tail.mask, x); }

  static Floats load(const bf16* p, Whole) { return from_bf16(load_words(p)); }
  static Floats load(const bf16* p, Tail tail) { return from_bf16(_mm256_maskz_loadu_epi16(tail.mask, p)); }
  static void store(bf16* p, Whole, Floats x) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), to_bf16(x)); }
  static void store(bf16* p, Tail tail, Floats x) { _mm256_mask_storeu_epi16(p, tail.mask, to_bf16(x)); }

  static Floats load(const fp16* p, Whole) { return _mm512_cvtph_ps(load_words(p)); }
  static Floats load(const fp16* p, Tail tail) { return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(tail.mask, p)); }

  CACHALOT_INLINE static void prefetch(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0); }

  // Rounded to nearest, ties to even; must fit.
  static void store(int8_t* p, Whole, Floats x) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(x)));
  }
  static void store(int8_t* p, Tail tail, Floats x) {
    _mm512_mask_cvtepi32_storeu_epi8(p, tail.mask, _mm512_cvtps_epi32(x));
  }

  CACHALOT_INLINE static Floats fma(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
  static Floats min(Floats a, Floats b) { return _mm512_min_ps(a, b); }
  static Floats max(Floats a, Floats b) { return _mm512_max_ps(a, b); }  // b where one of them is NaN
  // Of numbers without a sign: NaN where one of them is, since its bits are above all others.
  static Floats max_bits(Floats a, Floats b) {
    return _mm512_castsi512_ps(_mm512_max_epi32(_mm512_castps_si512(a), _mm512_castps_si512(b)));
  }
  static Floats abs(Floats a) { return _mm512_abs_ps(a); }
  static Floats select_negative(Floats x, Floats a, Floats b) {  // a where x < 0, else b
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(x, zero(), _CMP_LT_OQ), b, a);
  }
  static Floats replace(Floats x, Floats value, Floats by) {
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(x, value, _CMP_EQ_OQ), x, by);
  }
  static unsigned equal(Floats a, Floats b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }  // a bit a lane

  // Added by halves: lane i and i + 8, then of those i and i + 4, ...
  static float sum(Floats x) {
    const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
    __m128 quarter = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
    quarter = _mm_add_ps(quarter, _mm_movehl_ps(quarter, quarter));
    return _mm_cvtss_f32(_mm_add_ss(quarter, _mm_movehdup_ps(quarter)));
  }
  static float max(Floats x) { return _mm512_reduce_max_ps(x); }

  // (0, 1, 2, ...) -> (1, 0, 3, 2, ...); (p[0], p[0], p[1], p[1], ...); the even lanes negated.
  static Floats swap_pairs(Floats x) { return _mm512_permute_ps(x, 0xb1); }
  static Floats load_doubled(const float* p, Whole) { return doubled(_mm512_castps256_ps512(_mm256_loadu_ps(p))); }
  static Floats load_doubled(const float* p, Tail tail) { return doubled(load(p, Tail(tail.count / 2))); }
  static Floats negate_even(Floats x) {
    return _mm512_castsi512_ps(_mm512_xor_si512(_mm512_castps_si512(x), _mm512_set1_epi64(0x80000000)));
  }

  // The exponential of kernels/cores.h, for x <= 0; NaN stays.
  static Floats exp_nonpositive(Floats x) {
    const __mmask16 keep = _mm512_cmp_ps_mask(x, set(kExpLowest), _CMP_NLT_UQ);
    const Floats n = _mm512_roundscale_ps(x * set(kLog2E), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const Floats r = fma(n, set(-kLn2Low), fma(n, set(-kLn2High), x));
    Floats p = set(kExpTaylor[0]);
#pragma GCC unroll 8
    for (int degree = 1; degree < 8; degree++) p = fma(p, r, set(kExpTaylor[degree]));
    const __m512i exponent = _mm512_slli_epi32(_mm512_cvtps_epi32(n), 23);
    return _mm512_castsi512_ps(_mm512_maskz_add_epi32(keep, _mm512_castps_si512(p), exponent));
  }

 private:
  static __m256i load_words(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
  static Floats doubled(Floats x) {
    return _mm512_permutexvar_ps(_mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7), x);
  }
  static Floats from_bf16(__m256i bits) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
  }
  // As the constructor of bf16 rounds, NaN included (vcvtneps2bf16 would flush subnormals).
  static __m256i to_bf16(Floats x) {
    const __m512i bits = _mm512_castps_si512(x), high = _mm512_srli_epi32(bits, 16);
    const __m512i odd = _mm512_and_si512(high, _mm512_set1_epi32(1));
    __m512i rounded = _mm512_srli_epi32(_mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff))), 16);
    rounded = _mm512_mask_or_epi32(rounded, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), high, _mm512_set1_epi32(0x40));
    return _mm512_cvtepi32_epi16(rounded);
  }
};

// Register tiles over whole vectors. Unnamed, so that their code stays in each file.
namespace {

struct TileSimd : Simd {
  static constexpr int kWidth = 16;
  static constexpr int kTwoUnitRows = 3;  // float_core: rows with which two units are worked on at a time, 8 sums a row
  static constexpr int kStreamRows = 6;   // float_core: rows that share a pass over the weights
  static constexpr int kPanelRows = 6;    // float_core: rows of a tile over an expanded panel, 4 sums each
  static constexpr int kAttentionRows = 12;  // rows of a tile of attention, 2 sums each

  CACHALOT_INLINE static Floats load(const float* data) { return _mm512_loadu_ps(data); }
  CACHALOT_INLINE static void store(float* data, Floats x) { _mm512_storeu_ps(data, x); }
  // Four floats to every 128-bit lane.
  CACHALOT_INLINE static Floats broadcast_quad(const float* data) { return _mm512_broadcast_f32x4(_mm_loadu_ps(data)); }

  CACHALOT_INLINE static Floats unpack_low(Floats a, Floats b) { return _mm512_unpacklo_ps(a, b); }
  CACHALOT_INLINE static Floats unpack_high(Floats a, Floats b) { return _mm512_unpackhi_ps(a, b); }
  CACHALOT_INLINE static Floats unpack_low_pairs(Floats a, Floats b) {
    return _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
  }
  CACHALOT_INLINE static Floats unpack_high_pairs(Floats a, Floats b) {
    return _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
  }

  // 16 bytes of rows[0], rows[4], rows[8] and rows[12], a lane each.
  CACHALOT_INLINE static Floats load_lanes(const std::byte* const* rows, int64_t byte) {
    const auto lane = [&](int row)
                          CACHALOT_INLINE { return _mm_loadu_ps(reinterpret_cast<const float*>(rows[row] + byte)); };
    const Floats low = _mm512_insertf32x4(_mm512_castps128_ps512(lane(0)), lane(4), 1);
    return _mm512_insertf32x4(_mm512_insertf32x4(low, lane(8), 2), lane(12), 3);
  }
  // Of every pair of bf16, the first and the second.
  CACHALOT_INLINE static Floats first_bf16(Floats pairs) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(pairs), 16));
  }
  CACHALOT_INLINE static Floats second_bf16(Floats pairs) {
    return _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(pairs), _mm512_set1_epi32(-0x10000)));
  }

  // ---- integers ----

  using Ints = __m512i;
  CACHALOT_INLINE static Ints load_ints(const std::byte* data) { return _mm512_loadu_si512(data); }
  CACHALOT_INLINE static Ints zero_bits() { return _mm512_setzero_si512(); }
  CACHALOT_INLINE static Ints set_bytes(int8_t byte) { return _mm512_set1_epi8(byte); }
  CACHALOT_INLINE static Ints set_words(int16_t word) { return _mm512_set1_epi16(word); }
  CACHALOT_INLINE static Ints set_dwords(int32_t dword) { return _mm512_set1_epi32(dword); }
  CACHALOT_INLINE static Ints set_lanes(__m128i lane) { return _mm512_broadcast_i32x4(lane); }
  CACHALOT_INLINE static Ints set_qwords(int64_t qword) { return _mm512_set1_epi64(qword); }
  CACHALOT_INLINE static Ints sub_bytes(Ints a, Ints b) { return _mm512_sub_epi8(a, b); }
  CACHALOT_INLINE static Ints shift_words_right(Ints x, int bits) { return _mm512_srli_epi16(x, bits); }
  CACHALOT_INLINE static Ints shift_signed_words_right(Ints x, int bits) { return _mm512_srai_epi16(x, bits); }
  CACHALOT_INLINE static Ints shift_dwords_right(Ints x, Ints bits) { return _mm512_srlv_epi32(x, bits); }
  CACHALOT_INLINE static Ints shuffle_bytes(Ints x, Ints places) { return _mm512_shuffle_epi8(x, places); }
  CACHALOT_INLINE static Ints unpack_low_bytes(Ints a, Ints b) { return _mm512_unpacklo_epi8(a, b); }
  CACHALOT_INLINE static Ints unpack_high_bytes(Ints a, Ints b) { return _mm512_unpackhi_epi8(a, b); }
  CACHALOT_INLINE static Ints unpack_low_words(Ints a, Ints b) { return _mm512_unpacklo_epi16(a, b); }
  CACHALOT_INLINE static Ints unpack_high_words(Ints a, Ints b) { return _mm512_unpackhi_epi16(a, b); }
  CACHALOT_INLINE static Ints unpack_low_dwords(Ints a, Ints b) { return _mm512_unpacklo_epi32(a, b); }
  CACHALOT_INLINE static Ints unpack_high_dwords(Ints a, Ints b) { return _mm512_unpackhi_epi32(a, b); }
  CACHALOT_INLINE static Floats bits(Ints x) { return _mm512_castsi512_ps(x); }
  CACHALOT_INLINE static Floats to_floats(Ints x) { return _mm512_cvtepi32_ps(x); }

  // ---- decoders of weights (cpu/float_core_loops.h) ----

  CACHALOT_INLINE static Floats load_halves(const std::byte* data) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(data)));
  }
  CACHALOT_INLINE static Floats load_bf16(const std::byte* data) {
    const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(data));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
  }
  CACHALOT_INLINE static Floats low_halves(Ints x) { return _mm512_cvtph_ps(_mm512_castsi512_si256(x)); }
  CACHALOT_INLINE static Floats high_halves(Ints x) { return _mm512_cvtph_ps(_mm512_extracti64x4_epi64(x, 1)); }
  // The even 128-bit lanes of a, then b's; the odd ones.
  CACHALOT_INLINE static Floats even_lanes(Floats a, Floats b) { return _mm512_shuffle_f32x4(a, b, 0x88); }
  CACHALOT_INLINE static Floats odd_lanes(Floats a, Floats b) { return _mm512_shuffle_f32x4(a, b, 0xdd); }
  // Dwords in an order that unpacking bytes, which stays within lanes, turns into quads.
  CACHALOT_INLINE static Ints ordered_for_unpacking(Ints x) {
    return _mm512_permutexvar_epi32(_mm512_setr_epi32(0, 4, 2, 6, 8, 12, 10, 14, 1, 5, 3, 7, 9, 13, 11, 15), x);
  }
  // Where in a qword of a strip's zero points an output's nibble begins.
  CACHALOT_INLINE static Ints nibble_shifts(int /*unit*/) {
    return _mm512_setr_epi32(0, 0, 4, 4, 8, 8, 12, 12, 16, 16, 20, 20, 24, 24, 28, 28);
  }

  // ---- measurements (cpu/limits.h): what the compiler may not leave out ----

  static constexpr int kChains = 12;  // more than the latency of a product times those begun a cycle
  static constexpr int kByteOperations = 128;
  CACHALOT_INLINE static void multiply_bytes(Ints& sums, Ints x) {
    asm volatile("vpdpbusd %1,%1,%0" : "+v"(sums) : "v"(x));
  }
  CACHALOT_INLINE static void multiply_floats(Floats& sum, Floats x) {
    asm volatile("vfmadd231ps %1,%1,%0" : "+v"(sum) : "v"(x));
  }
  template <class Vector>
  CACHALOT_INLINE static void keep(Vector vector) {
    asm volatile("" ::"v"(vector));
  }
};

}  // namespace
}  // namespace cachalot::avx512
