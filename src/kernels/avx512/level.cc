#include "base/math.h"
#include "kernels/avx512/int_core.h"
#include "kernels/avx512/simd.h"
#include "kernels/cpu/attention_kernels_impl.h"
#include "kernels/cpu/linear_cores_impl.h"
#include "kernels/cpu/row_cores_impl.h"

namespace cachalot::avx512 {
namespace {

constexpr int kGroupRows = 4;  // rows that are transposed together
constexpr int kMostGroups = ceil_div(kFewTileRows, kGroupRows);

// Four rows of a block, transposed: dword r of 128-bit lane l of `quads[i]` holds inputs 4 * (4l + i) .. + 3 of row r.
struct Transposed {
  __m512i quads[4];

  Transposed() = default;
  CACHALOT_INLINE explicit Transposed(const __m512i (&rows)[kGroupRows]) {
    const __m512i low01 = _mm512_unpacklo_epi32(rows[0], rows[1]), high01 = _mm512_unpackhi_epi32(rows[0], rows[1]);
    const __m512i low23 = _mm512_unpacklo_epi32(rows[2], rows[3]), high23 = _mm512_unpackhi_epi32(rows[2], rows[3]);
    quads[0] = _mm512_unpacklo_epi64(low01, low23);
    quads[1] = _mm512_unpackhi_epi64(low01, low23);
    quads[2] = _mm512_unpacklo_epi64(high01, high23);
    quads[3] = _mm512_unpackhi_epi64(high01, high23);
  }
  template <int kQuad>
  CACHALOT_INLINE void store(int32_t* out) const {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm512_extracti32x4_epi32(quads[kQuad % 4], kQuad / 4));
  }
  // The sums of the four rows' int8.
  CACHALOT_INLINE __m128i sums() const {
    const __m512i ones = _mm512_set1_epi8(1);
    __m512i lanes = _mm512_setzero_si512();
    for (const __m512i& quad : quads) lanes = _mm512_dpbusd_epi32(lanes, ones, quad);
    const __m256i halves = _mm256_add_epi32(_mm512_castsi512_si256(lanes), _mm512_extracti64x4_epi64(lanes, 1));
    return _mm_add_epi32(_mm256_castsi256_si128(halves), _mm256_extracti128_si256(halves, 1));
  }
};

// Inputs of one block, of which `mask` are there.
struct BlockInputs {
  int64_t block, first;
  __mmask64 mask;
};

// Some rows of one block, at most kGroupRows; the missing ones are zero.
CACHALOT_INLINE inline Transposed load_rows(const IntRows& rows, int64_t first, int64_t end,
                                            const BlockInputs& inputs) {
  __m512i values[kGroupRows];
  unroll<kGroupRows>([&](auto row) CACHALOT_INLINE {
    values[row] = _mm512_setzero_si512();
    if (first + row < end) values[row] = _mm512_maskz_loadu_epi8(inputs.mask, rows.values[first + row] + inputs.first);
  });
  return Transposed(values);
}

// One block of a tile of rows [first, end), with room for `tile_rows`. A group of four rows is stored whole: what is
// too much lies where the next group or quad is stored after it, and at last where the scales are.
template <int kQuads, bool kBiased, int kGroups>
CACHALOT_INLINE inline void prepare_block(const IntRows& rows, int64_t first, int64_t end, int tile_rows,
                                          const BlockInputs& inputs, int32_t* out) {
  Transposed groups[kGroups];
  alignas(16) int32_t sums[kGroups * kGroupRows] = {};
  unroll<kGroups>([&](auto group) CACHALOT_INLINE {
    groups[group] = load_rows(rows, first + group * kGroupRows, end, inputs);
    if constexpr (kBiased) {
      unroll<4>([&](auto i)
                    CACHALOT_INLINE { groups[group].quads[i] = _mm512_xor_si512(groups[group].quads[i], bias()); });
    } else {
      _mm_store_si128(reinterpret_cast<__m128i*>(sums + group * kGroupRows), groups[group].sums());
    }
  });
  unroll<kQuads>([&](auto quad) CACHALOT_INLINE {
    unroll<kGroups>([&](auto group) CACHALOT_INLINE {
      groups[group].template store<quad>(out + quad * tile_rows + group * kGroupRows);
    });
  });
  auto* scales = reinterpret_cast<float*>(out + kQuads * tile_rows);
  int32_t* negated_sums = out + (kQuads + 1) * tile_rows;
  for (int row = 0; row < tile_rows; row++) {
    scales[row] = first + row < end ? rows.scales[first + row][inputs.block] : 0.f;
    negated_sums[row] = -sums[row];
  }
}

template <int kQuads, bool kBiased, int kGroups>
[[gnu::noinline]] void prepare_tile(int64_t in_features, const IntRows& rows, int64_t first, int64_t end, int tile_rows,
                                    int32_t* out) {
  constexpr int kInputs = 4 * kQuads;
  const int64_t num_blocks = ceil_div(in_features, kInputs);
  for (int64_t block = 0; block < num_blocks; block++, out += record_dwords(kInputs) * tile_rows) {
    const int64_t left = in_features - block * kInputs;
    const __mmask64 mask = ~uint64_t{0} >> (64 - (left < kInputs ? left : kInputs));
    prepare_block<kQuads, kBiased, kGroups>(rows, first, end, tile_rows, {block, block * kInputs, mask}, out);
  }
}

template <int kQuads, bool kBiased>
void prepare_rows(const MatrixShape& shape, const IntRows& rows, int32_t* out) {
  const RowTiles tiles(rows.num_rows);
  const int64_t row_dwords = ceil_div(shape.in_features, 4 * kQuads) * record_dwords(4 * kQuads);
  for (int tile = 0; tile < tiles.num_tiles; tile++) {
    const int tile_rows = tiles.rows_of_tile(tile, rows.num_rows);
    const int64_t first = static_cast<int64_t>(tile) * tiles.tile_rows;
    const int64_t end = first + tile_rows < rows.num_rows ? first + tile_rows : rows.num_rows;
    const int num_groups = ceil_div(tile_rows, kGroupRows);
    unroll<kMostGroups>([&](auto i) CACHALOT_INLINE {
      if (num_groups == i + 1)
        prepare_tile<kQuads, kBiased, i + 1>(shape.in_features, rows, first, end, tile_rows, out);
    });
    out += row_dwords * tile_rows;
  }
}

void prepare(const MatrixShape& shape, const IntRows& rows, std::byte* prepared) {
  auto* out = reinterpret_cast<int32_t*>(prepared);
  const bool biased = shape.format == MatrixFormat::kI8 || RowTiles(rows.num_rows).panel;
  if (shape.block_inputs == 32) {
    biased ? prepare_rows<8, true>(shape, rows, out) : prepare_rows<8, false>(shape, rows, out);
  } else {
    biased ? prepare_rows<16, true>(shape, rows, out) : prepare_rows<16, false>(shape, rows, out);
  }
}

void multiply(const IntCoreArgs& args) {
  if (RowTiles(args.num_rows).panel) {
    multiply_many_rows(args);
  } else {
    multiply_few_rows(args);
  }
}

constexpr IntCore kIntCore = {
    .prepared_bytes = prepared_bytes<kPanelTileRows>, .prepare = prepare, .multiply = multiply};

// All but the integer core: loops that are written once, over the level's vectors.
constexpr RowCores kRowCores = row_cores<Simd>();
constexpr LinearCores kLinearCores = linear_cores<Simd, TileSimd, kIntCore>();
constexpr AttentionKernels kAttentionKernels = attention_kernels<Simd, TileSimd>();
constexpr LimitCores kLimitCores = limit_cores<TileSimd>();

}  // namespace

constinit const LevelCores kCores = {.isa = IsaLevel::kAvx512,
                                     .rows = &kRowCores,
                                     .linear = &kLinearCores,
                                     .attention = &kAttentionKernels,
                                     .limits = &kLimitCores};

}  // namespace cachalot::avx512
