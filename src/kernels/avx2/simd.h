#pragma once

#include <immintrin.h>

#include <cstdint>

#include "base/numbers.h"
#include "kernels/exp.h"

// Vectors of floats of the AVX2 level, by the names that code written once for several levels uses
// (cpu/row_cores_impl.h).
namespace cachalot::avx2 {

struct Simd {
  using Floats = __m256;
  static constexpr int kLanes = 8;

  // A full vector, or the first `count` lanes at the end of a row; loading gives zero in the others.
  struct Whole {};
  struct Tail {
    explicit Tail(int64_t count) : count(static_cast<int>(count)) {}
    int count;
  };

  static Floats zero() { return _mm256_setzero_ps(); }
  static Floats set(float x) { return _mm256_set1_ps(x); }

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

  static void prefetch(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0); }

  // Rounded to nearest, ties to even; must fit.
  static void store(int8_t* p, Whole, Floats x) { _mm_storel_epi64(reinterpret_cast<__m128i*>(p), to_int8(x)); }
  static void store(int8_t* p, Tail tail, Floats x) {
    int8_t bytes[16];
    _mm_storeu_si128(reinterpret_cast<__m128i*>(bytes), to_int8(x));
    for (int i = 0; i < tail.count; i++) p[i] = bytes[i];
  }

  static Floats add(Floats a, Floats b) { return _mm256_add_ps(a, b); }
  static Floats sub(Floats a, Floats b) { return _mm256_sub_ps(a, b); }
  static Floats mul(Floats a, Floats b) { return _mm256_mul_ps(a, b); }
  static Floats div(Floats a, Floats b) { return _mm256_div_ps(a, b); }
  static Floats fma(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }
  static Floats min(Floats a, Floats b) { return _mm256_min_ps(a, b); }
  static Floats max(Floats a, Floats b) { return _mm256_max_ps(a, b); }  // b where one of them is NaN
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

  // The exponential of kernels/exp.h, for x <= 0; NaN stays.
  static Floats exp_nonpositive(Floats x) {
    const Floats keep = _mm256_cmp_ps(x, set(kExpLowest), _CMP_NLT_UQ);
    const Floats n = _mm256_round_ps(mul(x, set(kLog2E)), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
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

}  // namespace cachalot::avx2
