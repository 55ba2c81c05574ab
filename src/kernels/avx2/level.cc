#include <immintrin.h>

#include <cstring>

#include "base/math.h"
#include "kernels/avx2/simd.h"
#include "kernels/cores.h"
#include "kernels/cpu/attention_kernels_impl.h"
#include "kernels/cpu/int_records.h"
#include "kernels/cpu/linear_cores_impl.h"
#include "kernels/cpu/row_cores_impl.h"

namespace cachalot::avx2 {
namespace {

constexpr int kTileRows = 4;              // times a strip's two vectors: eight sums in registers
constexpr int kHalves = 2;                // of a strip: vectors of eight outputs
constexpr int64_t kPrefetchAhead = 2048;  // bytes of a strip: the next ones of its stream at the end

CACHALOT_INLINE inline __m256i load(const std::byte* data) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(data));
}

// Pairs of 16-bit sums added up to 32 bits.
CACHALOT_INLINE inline __m256i widen(__m256i sums) {
  return _mm256_madd_epi16(sums, _mm256_set1_epi16(1));
}

// Sums of one strip's block: of row r and half h, sums[r * kHalves + h].
template <int kRows>
using Sums = __m256i[kRows * kHalves];

// Nibbles. A product of a nibble and an int8 pair fits 16 bits eight times over (8 * 2 * 15 * 127 < 2^15), of a table's
// number, at most 24, four times: the quads of four or two vectors are added before they are widened.
template <int kBlockInputs, MatrixFormat kFormat>
struct Int4 : Int4Layout<kBlockInputs, kFormat> {
  using Layout = Int4Layout<kBlockInputs, kFormat>;
  using Layout::kQuads, Layout::kVectors, Layout::kScales, Layout::kZeros, Layout::kIsTable;
  static constexpr int kVectorsAtOnce = kIsTable ? 2 : 4;

  CACHALOT_INLINE static __m256 scales(const std::byte* block, int half) {
    const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(block + kScales + 16 * half));
    if constexpr (Layout::kHasHalfScales) return _mm256_cvtph_ps(halves);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
  }

  template <int kRows>
  CACHALOT_INLINE static void multiply(const std::byte* block, const int32_t* records, Sums<kRows>& sums) {
    unroll<kHalves>([&](auto half) CACHALOT_INLINE {
      const __m256i zero_points = zeros(block, half);
      unroll<kRows>([&](auto row) CACHALOT_INLINE {  // both fit 16 bits
        const __m256i negated_sum = _mm256_set1_epi32(records[(kQuads + 1) * kRows + row]);
        sums[row * kHalves + half] = _mm256_madd_epi16(zero_points, negated_sum);
      });
    });
    for (int begin = 0; begin < kVectors; begin += kVectorsAtOnce) {
      Sums<kRows> short_sums;
      unroll<kRows * kHalves>([&](auto i) CACHALOT_INLINE { short_sums[i] = _mm256_setzero_si256(); });
      for (int vector = begin; vector < begin + kVectorsAtOnce; vector++)
        add_vector<kRows>(block + 64 * vector, records + 2 * vector * kRows, short_sums);
      unroll<kRows * kHalves>([&](auto i)
                                  CACHALOT_INLINE { sums[i] = _mm256_add_epi32(sums[i], widen(short_sums[i])); });
    }
  }

 private:
  // Zero points as dwords: output o is nibble o / 2 of dword o % 2.
  CACHALOT_INLINE static __m256i zeros(const std::byte* block, int half) {
    if constexpr (kIsTable) return _mm256_set1_epi32(kF4Zero);
    const __m256i shifts = _mm256_add_epi32(_mm256_setr_epi32(0, 0, 4, 4, 8, 8, 12, 12), _mm256_set1_epi32(16 * half));
    const __m256i both = _mm256_broadcastq_epi64(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(block + kZeros)));
    return _mm256_and_si256(_mm256_srlv_epi32(both, shifts), _mm256_set1_epi32(15));
  }

  CACHALOT_INLINE static __m256i looked_up(__m256i nibbles) {
    if constexpr (!kIsTable) return nibbles;
    return _mm256_shuffle_epi8(
        _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(kF4Biased))), nibbles);
  }

  template <int kRows>
  CACHALOT_INLINE static void add_vector(const std::byte* vector, const int32_t* records, Sums<kRows>& sums) {
    const __m256i mask = _mm256_set1_epi8(15);
    _mm_prefetch(reinterpret_cast<const char*>(vector + kPrefetchAhead), _MM_HINT_T0);
    const auto add_quad = [&](const __m256i(&weights)[kHalves], const int32_t* quads) CACHALOT_INLINE {
      unroll<kRows>([&](auto row) CACHALOT_INLINE {
        const __m256i inputs = _mm256_set1_epi32(quads[row]);
        unroll<kHalves>([&](auto half) CACHALOT_INLINE {
          __m256i& sum = sums[row * kHalves + half];
          sum = _mm256_add_epi16(sum, _mm256_maddubs_epi16(weights[half], inputs));
        });
      });
    };
    __m256i low[kHalves], high[kHalves];
    unroll<kHalves>([&](auto half) CACHALOT_INLINE {
      const __m256i bytes = load(vector + 32 * half);
      low[half] = looked_up(_mm256_and_si256(bytes, mask));
      high[half] = looked_up(_mm256_and_si256(_mm256_srli_epi16(bytes, 4), mask));
    });
    add_quad(low, records);
    add_quad(high, records + kRows);
  }
};

// kI8. |w| is the unsigned factor and the row's int8 take over its sign: 2 * 127 * 127 fits 16 bits once.
struct Int8 : Int8Layout {
  CACHALOT_INLINE static __m256 scales(const std::byte* block, int half) {
    return _mm256_loadu_ps(reinterpret_cast<const float*>(block + kScales + 32 * half));
  }

  template <int kRows>
  CACHALOT_INLINE static void multiply(const std::byte* block, const int32_t* records, Sums<kRows>& sums) {
    unroll<kRows * kHalves>([&](auto i) CACHALOT_INLINE { sums[i] = _mm256_setzero_si256(); });
    for (int quad = 0; quad < kQuads; quad++) {
      _mm_prefetch(reinterpret_cast<const char*>(block + 64 * quad + kPrefetchAhead), _MM_HINT_T0);
      __m256i weights[kHalves], magnitudes[kHalves];
      unroll<kHalves>([&](auto half) CACHALOT_INLINE {
        weights[half] = load(block + 64 * quad + 32 * half);
        magnitudes[half] = _mm256_abs_epi8(weights[half]);
      });
      unroll<kRows>([&](auto row) CACHALOT_INLINE {
        const __m256i inputs = _mm256_set1_epi32(records[quad * kRows + row]);
        unroll<kHalves>([&](auto half) CACHALOT_INLINE {
          const __m256i products = _mm256_maddubs_epi16(magnitudes[half], _mm256_sign_epi8(inputs, weights[half]));
          sums[row * kHalves + half] = _mm256_add_epi32(sums[row * kHalves + half], widen(products));
        });
      });
    }
  }
};

// Two strips times one tile: out[r][s][16 outputs]. The fp32 sums stay in the first-level cache.
template <class Block, int kRows>
[[gnu::noinline]] void multiply_tile(const IntCoreArgs& args, int64_t num_blocks, const int32_t* records, float* out) {
  constexpr int kStrips = 2;
  std::memset(out, 0, kRows * kStrips * kStrip * sizeof(float));
  for (int64_t block_idx = 0; block_idx < num_blocks; block_idx++, records += record_dwords(Block::kInputs) * kRows) {
    const auto* row_scales = reinterpret_cast<const float*>(records + Block::kQuads * kRows);
    for (int strip = 0; strip < kStrips; strip++) {
      const std::byte* block = args.strips[strip] + block_idx * Block::kBytes;
      Sums<kRows> sums;
      Block::template multiply<kRows>(block, records, sums);
      unroll<kHalves>([&](auto half) CACHALOT_INLINE {
        const __m256 scales = Block::scales(block, half);
        unroll<kRows>([&](auto row) CACHALOT_INLINE {
          float* result = out + (row * kStrips + strip) * kStrip + half * 8;
          const __m256 scale = _mm256_mul_ps(scales, _mm256_set1_ps(row_scales[row]));
          const __m256 sum = _mm256_cvtepi32_ps(sums[row * kHalves + half]);
          _mm256_store_ps(result, _mm256_fmadd_ps(sum, scale, _mm256_load_ps(result)));
        });
      });
    }
  }
}

template <class Block>
void multiply_tiles(const IntCoreArgs& args) {
  const int64_t num_blocks = ceil_div(args.shape.in_features, Block::kInputs);
  const auto* records = reinterpret_cast<const int32_t*>(args.prepared);
  float* out = args.out;
  for (int64_t left = args.num_rows; left > 0; left -= kTileRows) {
    const int64_t rows = left < kTileRows ? left : kTileRows;
    unroll<kTileRows>([&](auto i) CACHALOT_INLINE {
      if (rows == i + 1) multiply_tile<Block, i + 1>(args, num_blocks, records, out);
    });
    records += record_dwords(Block::kInputs) * num_blocks * rows;
    out += rows * 2 * kStrip;
  }
}

// The sum of 32 int8, a dword each of eight parts.
CACHALOT_INLINE inline int32_t sum_of(__m256i parts) {
  const __m128i halves = _mm_add_epi32(_mm256_castsi256_si128(parts), _mm256_extracti128_si256(parts, 1));
  const __m128i pairs = _mm_add_epi32(halves, _mm_shuffle_epi32(halves, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi32(pairs, _mm_shuffle_epi32(pairs, 0xb1)));
}

// One row's block into a tile of `tile_rows`.
void prepare_block(const int8_t* values, int block_inputs, float scale, int64_t tile_rows, int32_t* record) {
  __m256i parts = _mm256_setzero_si256();
  for (int begin = 0; begin < block_inputs; begin += 32) {
    const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(values + begin));
    parts = _mm256_add_epi32(parts, widen(_mm256_maddubs_epi16(_mm256_set1_epi8(1), bytes)));
  }
  const int quads = block_inputs / 4;
  for (int quad = 0; quad < quads; quad++) std::memcpy(record + quad * tile_rows, values + 4 * quad, 4);
  std::memcpy(record + quads * tile_rows, &scale, sizeof(scale));
  record[(quads + 1) * tile_rows] = -sum_of(parts);
}

void prepare(const MatrixShape& shape, const IntRows& rows, std::byte* prepared) {
  constexpr int kMostInputs = 64;
  auto* tile = reinterpret_cast<int32_t*>(prepared);
  const int64_t num_blocks = ceil_div(shape.in_features, shape.block_inputs);
  for (int64_t first = 0; first < rows.num_rows; first += kTileRows) {
    const int64_t tile_rows = rows.num_rows - first < kTileRows ? rows.num_rows - first : kTileRows;
    const int64_t record = record_dwords(shape.block_inputs) * tile_rows;
    for (int64_t row = 0; row < tile_rows; row++) {
      const int8_t* values = rows.values[first + row];
      const float* scales = rows.scales[first + row];
      for (int64_t block = 0; block < num_blocks; block++) {
        const int64_t input = block * shape.block_inputs, left = shape.in_features - input;
        int8_t last[kMostInputs] = {};
        if (left < shape.block_inputs) std::memcpy(last, values + input, static_cast<size_t>(left));
        prepare_block(left < shape.block_inputs ? last : values + input, shape.block_inputs, scales[block], tile_rows,
                      tile + block * record + row);
      }
    }
    tile += record * num_blocks;
  }
}

void multiply(const IntCoreArgs& args) {
  with_block_of<Int4, Int8>(args.shape, [&]<class Block>() { multiply_tiles<Block>(args); });
}

constexpr IntCore kIntCore = {.prepared_bytes = prepared_bytes<0>, .prepare = prepare, .multiply = multiply};

// All but the integer core: loops that are written once, over the level's vectors.
constexpr RowCores kRowCores = row_cores<Simd>();
constexpr LinearCores kLinearCores = linear_cores<Simd, TileSimd, kIntCore>();
constexpr AttentionKernels kAttentionKernels = attention_kernels<Simd, TileSimd>();
constexpr LimitCores kLimitCores = limit_cores<TileSimd>();

}  // namespace

constinit const LevelCores kCores = {.isa = IsaLevel::kAvx2,
                                     .rows = &kRowCores,
                                     .linear = &kLinearCores,
                                     .attention = &kAttentionKernels,
                                     .limits = &kLimitCores};

}  // namespace cachalot::avx2
