#pragma once

#include <immintrin.h>

#include <cstdint>

#include "base/numbers.h"
#include "kernels/exp.h"

// Vectors of floats of the AVX-512 level, by the names that code written once for several levels uses
// (cpu/row_cores_impl.h).
namespace cachalot::avx512 {

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

  static Floats zero() { return _mm512_setzero_ps(); }
  static Floats set(float x) { return _mm512_set1_ps(x); }

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

  static void prefetch(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0); }

  // Rounded to nearest, ties to even; must fit.
  static void store(int8_t* p, Whole, Floats x) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(x)));
  }
  static void store(int8_t* p, Tail tail, Floats x) {
    _mm512_mask_cvtepi32_storeu_epi8(p, tail.mask, _mm512_cvtps_epi32(x));
  }

  static Floats add(Floats a, Floats b) { return _mm512_add_ps(a, b); }
  static Floats sub(Floats a, Floats b) { return _mm512_sub_ps(a, b); }
  static Floats mul(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
  static Floats div(Floats a, Floats b) { return _mm512_div_ps(a, b); }
  static Floats fma(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
  static Floats min(Floats a, Floats b) { return _mm512_min_ps(a, b); }
  static Floats max(Floats a, Floats b) { return _mm512_max_ps(a, b); }  // b where one of them is NaN
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

  // The exponential of kernels/exp.h, for x <= 0; NaN stays.
  static Floats exp_nonpositive(Floats x) {
    const __mmask16 keep = _mm512_cmp_ps_mask(x, set(kExpLowest), _CMP_NLT_UQ);
    const Floats n = _mm512_roundscale_ps(mul(x, set(kLog2E)), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
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

}  // namespace cachalot::avx512
