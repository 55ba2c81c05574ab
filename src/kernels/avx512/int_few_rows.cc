#include "base/math.h"
#include "kernels/avx512/int_core.h"

// Few rows: weights are unpacked in registers, for two strips times a tile of rows at once. With more than one tile,
// the later ones find the pair of strips in the caches.
namespace cachalot::avx512 {
namespace {

constexpr int kStrips = 2;
constexpr int kRegisterRows = 4;  // up to here, the memory is the limit: fp32 sums stay in registers too

template <class Block, int kRows>
class FewRows {
  static constexpr bool kInRegisters = kRows <= kRegisterRows;
  static constexpr int kSums = kStrips * kRows;  // of strip s and row r: s * kRows + r
  // Few rows' high nibbles are not shifted: their sums, sixteen times too large, are.
  static constexpr bool kShiftsSums = [] {
    if constexpr (Block::kNibbles) return kInRegisters && !Block::kIsTable;
    return false;
  }();

 public:
  // Rows from `first_row` on; out[r][s][16 outputs].
  [[gnu::noinline]] static void multiply(const IntCoreArgs& args, int64_t num_blocks, const int32_t* records,
                                         int64_t first_row) {
    float* const out = args.out + first_row * kStrips * kStrip;
    const std::byte* blocks[kStrips] = {args.strips[0], args.strips[1]};
    __m512 acc[kSums];
    unroll<kSums>([&](auto i) CACHALOT_INLINE {
      acc[i] = _mm512_setzero_ps();
      if constexpr (!kInRegisters) _mm512_store_ps(result(out, i), acc[i]);
    });
    for (int64_t block = 0; block < num_blocks; block++) {
      __m512i sums[kSums];
      if (block < kRows) prefetch_targets(args.targets, first_row + block);
      add_products(blocks, records, sums);
      const auto* row_scales = reinterpret_cast<const float*>(records + Block::kQuads * kRows);
      unroll<kStrips>([&](auto s) CACHALOT_INLINE {
        const __m512 scales = Block::scales(blocks[s]);
        prefetch(blocks[s] + kPrefetchAhead + Block::kScales);
        blocks[s] += Block::kBytes;
        unroll<kRows>([&](auto r) CACHALOT_INLINE {
          constexpr int i = s * kRows + r;
          if constexpr (kInRegisters) {
            acc[i] = add_block(sums[i], scales, row_scales[r], acc[i]);
          } else {
            _mm512_store_ps(result(out, i), add_block(sums[i], scales, row_scales[r], _mm512_load_ps(result(out, i))));
          }
        });
      });
      if constexpr (!kInRegisters)
        asm volatile("" ::"r"(out) : "memory");  // else g++ 12 keeps the sums in registers and spills others
      records += (Block::kQuads + 2) * kRows;
    }
    if constexpr (kInRegisters) unroll<kSums>([&](auto i) CACHALOT_INLINE { _mm512_store_ps(result(out, i), acc[i]); });
  }

 private:
  CACHALOT_INLINE static float* result(float* out, int i) { return out + (i % kRows * kStrips + i / kRows) * kStrip; }

  CACHALOT_INLINE static void add_products(const std::byte* const (&blocks)[kStrips], const int32_t* records,
                                           __m512i (&sums)[kSums]) {
    if constexpr (Block::kNibbles) {
      add_nibbles(blocks, records, sums);
    } else {
      add_bytes(blocks, records, sums);
    }
  }

  // sum(q * a) - zero * sum(a); the last part is where the sums start.
  CACHALOT_INLINE static void add_nibbles(const std::byte* const (&blocks)[kStrips], const int32_t* records,
                                          __m512i (&sums)[kSums]) {
    __m512i high_sums[kShiftsSums ? kSums : 1];
    unroll<kStrips>([&](auto s) CACHALOT_INLINE {
      const __m512i zeros = Block::zeros(blocks[s]);
      unroll<kRows>([&](auto r) CACHALOT_INLINE {
        const __m512i negated_sum = _mm512_set1_epi32(records[(Block::kQuads + 1) * kRows + r]);
        sums[s * kRows + r] = _mm512_dpwssd_epi32(_mm512_setzero_si512(), zeros, negated_sum);  // both fit 16 bits
        if constexpr (kShiftsSums) high_sums[s * kRows + r] = _mm512_setzero_si512();
      });
    });
    const auto add_vector = [&](int vector) CACHALOT_INLINE {
      __m512i low[kStrips], high[kStrips];
      unroll<kStrips>([&](auto s) CACHALOT_INLINE {
        const __m512i bytes = load(blocks[s] + 64 * vector);
        prefetch(blocks[s] + kPrefetchAhead + 64 * vector);
        low[s] = Block::low(bytes);
        high[s] = kShiftsSums ? _mm512_and_si512(bytes, _mm512_set1_epi8(static_cast<char>(0xf0))) : Block::high(bytes);
      });
      unroll<kRows>([&](auto r) CACHALOT_INLINE {
        const __m512i inputs = broadcast(records + 2 * vector * kRows + r);
        unroll<kStrips>([&](auto s) CACHALOT_INLINE { dot(sums[s * kRows + r], low[s], inputs); });
      });
      unroll<kRows>([&](auto r) CACHALOT_INLINE {
        const __m512i inputs = broadcast(records + (2 * vector + 1) * kRows + r);
        unroll<kStrips>([&](auto s) CACHALOT_INLINE {
          dot(kShiftsSums ? high_sums[s * kRows + r] : sums[s * kRows + r], high[s], inputs);
        });
      });
    };
    if constexpr (kInRegisters) {
      unroll<Block::kVectors>(add_vector);
      unroll<kShiftsSums ? kSums : 0>(
          [&](auto i) CACHALOT_INLINE { sums[i] = _mm512_add_epi32(sums[i], _mm512_srai_epi32(high_sums[i], 4)); });
    } else {
      for (int vector = 0; vector < Block::kVectors; vector++) add_vector(vector);
    }
  }

  // sum(w * (a + 128)) - 128 * sum(w)
  CACHALOT_INLINE static void add_bytes(const std::byte* const (&blocks)[kStrips], const int32_t* records,
                                        __m512i (&sums)[kSums]) {
    __m512i corrections[kStrips];
    unroll<kSums>([&](auto i) CACHALOT_INLINE { sums[i] = _mm512_setzero_si512(); });
    unroll<kStrips>([&](auto s) CACHALOT_INLINE { corrections[s] = _mm512_setzero_si512(); });
    const __m512i biases = bias();
    for (int vector = 0; vector < Block::kVectors; vector++) {
      __m512i weights[kStrips];
      unroll<kStrips>([&](auto s) CACHALOT_INLINE {
        weights[s] = load(blocks[s] + 64 * vector);
        prefetch(blocks[s] + kPrefetchAhead + 64 * vector);
        dot(corrections[s], biases, weights[s]);
      });
      unroll<kRows>([&](auto r) CACHALOT_INLINE {
        const __m512i inputs = broadcast(records + vector * kRows + r);
        unroll<kStrips>([&](auto s) CACHALOT_INLINE { dot(sums[s * kRows + r], inputs, weights[s]); });
      });
    }
    unroll<kStrips>([&](auto s) CACHALOT_INLINE {
      unroll<kRows>(
          [&](auto r) CACHALOT_INLINE { sums[s * kRows + r] = _mm512_sub_epi32(sums[s * kRows + r], corrections[s]); });
    });
  }
};

template <class Block>
void multiply(const IntCoreArgs& args) {
  const RowTiles tiles(args.num_rows);
  const int64_t num_blocks = ceil_div(args.shape.in_features, Block::kInputs);
  const auto* records = reinterpret_cast<const int32_t*>(args.prepared);
  int64_t first_row = 0;
  for (int tile = 0; tile < tiles.num_tiles; tile++) {
    const int rows = tiles.rows_of_tile(tile, args.num_rows);
    unroll<kFewTileRows>([&](auto i) CACHALOT_INLINE {
      if (rows == i + 1) FewRows<Block, i + 1>::multiply(args, num_blocks, records, first_row);
    });
    records += record_dwords(Block::kInputs) * num_blocks * rows;
    first_row += rows;
  }
}

}  // namespace

void multiply_few_rows(const IntCoreArgs& args) {
  with_block_of<Int4, Int8>(args.shape, [&]<class Block>() { multiply<Block>(args); });
}

}  // namespace cachalot::avx512
