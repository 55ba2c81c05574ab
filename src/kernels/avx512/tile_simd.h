#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/unroll.h"

// What the loops shared by the levels (cpu/*_loops.h) need of AVX-512. Unnamed, so that their code stays in each file.
namespace cachalot::avx512 {
namespace {

struct TileSimd {
  using Floats = __m512;
  static constexpr int kWidth = 16;
  static constexpr int kTwoUnitRows = 3;  // float_core: rows with which two units are worked on at a time, 8 sums a row
  static constexpr int kStreamRows = 6;   // float_core: rows that share a pass over the weights
  static constexpr int kPanelRows = 6;    // float_core: rows of a tile over an expanded panel, 4 sums each
  static constexpr int kAttentionRows = 12;  // rows of a tile of attention, 2 sums each

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
};

}  // namespace
}  // namespace cachalot::avx512
