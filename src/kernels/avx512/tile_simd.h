#pragma once

#include <immintrin.h>

#include <cstdint>

#include "kernels/cpu/unroll.h"

// What the loops shared by the levels (cpu/*_loops.h) need of AVX-512. Unnamed, so that their code stays in each file.
namespace cachalot::avx512 {
namespace {

struct TileSimd {
  using Floats = __m512;
  static constexpr int kWidth = 16;
  static constexpr int kStreamRows = 3;  // float_core: rows that share a pass over the weights, 8 sums each
  static constexpr int kPanelRows = 6;   // float_core: rows of a tile over an expanded panel, 4 sums each

  CACHALOT_INLINE static Floats zero() { return _mm512_setzero_ps(); }
  CACHALOT_INLINE static Floats set(float value) { return _mm512_set1_ps(value); }
  CACHALOT_INLINE static Floats load(const float* data) { return _mm512_loadu_ps(data); }
  CACHALOT_INLINE static void store(float* data, Floats x) { _mm512_storeu_ps(data, x); }
  // Four floats to every 128-bit lane.
  CACHALOT_INLINE static Floats broadcast_quad(const float* data) { return _mm512_broadcast_f32x4(_mm_loadu_ps(data)); }
  CACHALOT_INLINE static Floats fma(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
  CACHALOT_INLINE static Floats add(Floats a, Floats b) { return _mm512_add_ps(a, b); }
  CACHALOT_INLINE static Floats mul(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
  CACHALOT_INLINE static void prefetch(const void* data) { _mm_prefetch(static_cast<const char*>(data), _MM_HINT_T0); }

  CACHALOT_INLINE static Floats unpack_low(Floats a, Floats b) { return _mm512_unpacklo_ps(a, b); }
  CACHALOT_INLINE static Floats unpack_high(Floats a, Floats b) { return _mm512_unpackhi_ps(a, b); }
  CACHALOT_INLINE static Floats unpack_low_pairs(Floats a, Floats b) {
    return _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
  }
  CACHALOT_INLINE static Floats unpack_high_pairs(Floats a, Floats b) {
    return _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
  }
};

}  // namespace
}  // namespace cachalot::avx512
