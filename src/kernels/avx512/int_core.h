#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "kernels/cores.h"
#include "kernels/cpu/int_records.h"

// The AVX-512 integer core: what its parts (level.cc, int_few_rows.cc, int_many_rows.cc) have in common.
//
// vpdpbusd multiplies unsigned by signed bytes: where the weights are signed (kI8, and the panel of many rows), the
// int8 of the rows are biased by 128 and the sums corrected by what the weights alone determine.
namespace cachalot::avx512 {

void multiply_few_rows(const IntCoreArgs& args);
void multiply_many_rows(const IntCoreArgs& args);

inline constexpr int kFewTileRows = 12;   // most rows of a tile that keeps its sums in registers beside the weights
inline constexpr int kFewRows = 36;       // up to here weights are unpacked once a tile, above once for all rows
inline constexpr int kPanelTileRows = 6;  // rows of a tile over an unpacked panel, at most

// How a number of rows is cut into tiles.
struct RowTiles {
  bool panel;
  int tile_rows;  // of all tiles, but for the last one where there is no panel
  int num_tiles;

  explicit constexpr RowTiles(int64_t num_rows) : panel(num_rows > kFewRows) {
    const int rows = static_cast<int>(num_rows);
    if (!panel) {
      num_tiles = (rows + kFewTileRows - 1) / kFewTileRows;
      tile_rows = (rows + num_tiles - 1) / num_tiles;
      return;
    }
    tile_rows = kPanelTileRows;  // or fewer, where that leaves less padding
    num_tiles = (rows + tile_rows - 1) / tile_rows;
    for (int fewer = kPanelTileRows - 1; fewer >= kPanelTileRows - 2; fewer--) {
      const int tiles = (rows + fewer - 1) / fewer;
      if (tiles * fewer < num_tiles * tile_rows) tile_rows = fewer, num_tiles = tiles;
    }
  }
  // Rows of tile `idx` (the panel's tiles are padded).
  constexpr int rows_of_tile(int idx, int64_t num_rows) const {
    const int left = static_cast<int>(num_rows) - idx * tile_rows;
    return panel || left > tile_rows ? tile_rows : left;
  }
};

// ---- of internal linkage ----

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

template <int kBlockInputs, MatrixFormat kFormat>
struct Int4 : Int4Layout<kBlockInputs, kFormat> {
  using Layout = Int4Layout<kBlockInputs, kFormat>;
  using Layout::kScales, Layout::kZeros, Layout::kIsTable;

  CACHALOT_INLINE static __m512 scales(const std::byte* block) {
    const __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(block + kScales));
    if constexpr (Layout::kHasHalfScales) return _mm512_cvtph_ps(halves);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
  }
  // The unsigned numbers of a vector's low nibbles, and of its high ones.
  CACHALOT_INLINE static __m512i low(__m512i bytes) { return looked_up(low_nibbles(bytes)); }
  CACHALOT_INLINE static __m512i high(__m512i bytes) { return looked_up(high_nibbles(bytes)); }
  // Zero points as dwords: output o is nibble o / 2 of dword o % 2.
  CACHALOT_INLINE static __m512i zeros(const std::byte* block) {
    if constexpr (kIsTable) return _mm512_set1_epi32(kF4Zero);
    const __m512i shifts = _mm512_setr_epi32(0, 0, 4, 4, 8, 8, 12, 12, 16, 16, 20, 20, 24, 24, 28, 28);
    const __m512i both = _mm512_broadcastq_epi64(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(block + kZeros)));
    return _mm512_and_si512(_mm512_srlv_epi32(both, shifts), _mm512_set1_epi32(15));
  }

 private:
  CACHALOT_INLINE static __m512i looked_up(__m512i nibbles) {
    if constexpr (!kIsTable) return nibbles;
    return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(kF4Biased))),
                               nibbles);
  }
};

struct Int8 : Int8Layout {
  CACHALOT_INLINE static __m512 scales(const std::byte* block) { return _mm512_loadu_ps(block + kScales); }
};

}  // namespace
}  // namespace cachalot::avx512
