#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/unroll.h"

// What the loops shared by the levels (cpu/*_loops.h) need of AVX2. Unnamed, so that their code stays in each file.
namespace cachalot::avx2 {
namespace {

struct TileSimd {
  using Floats = __m256;
  static constexpr int kWidth = 8;
  static constexpr int kTwoUnitRows = 1;  // float_core: rows with which two units are worked on at a time, 8 sums a row
  static constexpr int kStreamRows = 2;   // float_core: rows that share a pass over the weights
  static constexpr int kPanelRows = 3;    // float_core: rows of a tile over an expanded panel, 4 sums each
  static constexpr int kAttentionRows = 6;  // rows of a tile of attention, 2 sums each

  CACHALOT_INLINE static Floats zero() { return _mm256_setzero_ps(); }
  CACHALOT_INLINE static Floats set(float value) { return _mm256_set1_ps(value); }
  CACHALOT_INLINE static Floats load(const float* data) { return _mm256_loadu_ps(data); }
  CACHALOT_INLINE static void store(float* data, Floats x) { _mm256_storeu_ps(data, x); }
  // Four floats to every 128-bit lane.
  CACHALOT_INLINE static Floats broadcast_quad(const float* data) {
    return _mm256_broadcast_ps(reinterpret_cast<const __m128*>(data));
  }
  CACHALOT_INLINE static Floats fma(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }
  CACHALOT_INLINE static Floats add(Floats a, Floats b) { return _mm256_add_ps(a, b); }
  CACHALOT_INLINE static Floats mul(Floats a, Floats b) { return _mm256_mul_ps(a, b); }
  CACHALOT_INLINE static void prefetch(const void* data) { _mm_prefetch(static_cast<const char*>(data), _MM_HINT_T0); }

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
};

}  // namespace
}  // namespace cachalot::avx2
