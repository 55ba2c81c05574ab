#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "kernels/cores.h"
#include "kernels/cpu/unroll.h"

// What the integer cores need of AVX-512, and the blocks of integer matrices (matrix.h). Of internal linkage.
namespace cachalot::avx512 {
namespace {

constexpr int64_t kPrefetchAhead = 4096;  // bytes of a strip: the next ones of its stream at the end

CACHALOT_INLINE inline __m512i load(const void* data) {
  return _mm512_loadu_si512(data);
}
CACHALOT_INLINE inline void prefetch(const void* data) {
  _mm_prefetch(static_cast<const char*>(data), _MM_HINT_T0);
}

CACHALOT_INLINE inline void prefetch_targets(const ResultTargets& targets, int64_t row) {
  if (!targets.strips[0]) return;
  const int64_t offset = (targets.row_ids ? targets.row_ids[row] : row) * targets.row_bytes;
  asm volatile("prefetchw %0" ::"m"(targets.strips[0][offset]));
  asm volatile("prefetchw %0" ::"m"(targets.strips[1][offset]));
}

// sums += unsigned bytes * signed bytes, four a sum. As volatile assembly, like the broadcast: g++ 12 otherwise gathers
// the broadcasts of a loop before its products and spills them.
CACHALOT_INLINE inline void dot(__m512i& sums, __m512i unsigned_bytes, __m512i signed_bytes) {
  __m512i result = sums;
  asm volatile("vpdpbusd %2,%1,%0" : "+v"(result) : "v"(unsigned_bytes), "v"(signed_bytes));
  sums = result;
}
CACHALOT_INLINE inline __m512i broadcast(const int32_t* dword) {
  __m512i result;
  asm volatile("vpbroadcastd %1,%0" : "=v"(result) : "m"(*dword));
  return result;
}

CACHALOT_INLINE inline __m512i low_nibbles(__m512i bytes) {
  return _mm512_and_si512(bytes, _mm512_set1_epi8(15));
}
CACHALOT_INLINE inline __m512i high_nibbles(__m512i bytes) {
  return _mm512_and_si512(_mm512_srli_epi16(bytes, 4), _mm512_set1_epi8(15));
}
CACHALOT_INLINE inline __m512i bias() {
  return _mm512_set1_epi8(static_cast<char>(0x80));
}

// fma(float(sum), weight scale * row scale, acc)
CACHALOT_INLINE inline __m512 add_block(__m512i sums, __m512 weight_scales, float row_scale, __m512 acc) {
  return _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums), _mm512_mul_ps(weight_scales, _mm512_set1_ps(row_scale)), acc);
}

// A block of kI4. A vector is eight inputs: four in low nibbles, four in high ones.
template <int kBlockInputs>
struct Int4 {
  static constexpr bool kNibbles = true;
  static constexpr int kInputs = kBlockInputs, kQuads = kInputs / 4, kVectors = kInputs / 8;
  static constexpr int64_t kScales = kVectors * 64, kZeros = kScales + 32, kBytes = kZeros + 8;

  CACHALOT_INLINE static __m512 scales(const std::byte* block) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(block + kScales)));
  }
  // Zero points as dwords: output o is nibble o / 2 of dword o % 2.
  CACHALOT_INLINE static __m512i zeros(const std::byte* block) {
    const __m512i shifts = _mm512_setr_epi32(0, 0, 4, 4, 8, 8, 12, 12, 16, 16, 20, 20, 24, 24, 28, 28);
    const __m512i both = _mm512_broadcastq_epi64(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(block + kZeros)));
    return _mm512_and_si512(_mm512_srlv_epi32(both, shifts), _mm512_set1_epi32(15));
  }
};

// A block of kI8. A vector is four inputs.
struct Int8 {
  static constexpr bool kNibbles = false;
  static constexpr int kInputs = 64, kQuads = kInputs / 4, kVectors = kQuads;
  static constexpr int64_t kScales = kVectors * 64, kBytes = kScales + 64;

  CACHALOT_INLINE static __m512 scales(const std::byte* block) { return _mm512_loadu_ps(block + kScales); }
};

}  // namespace
}  // namespace cachalot::avx512
