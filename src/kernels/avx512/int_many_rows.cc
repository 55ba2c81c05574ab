#include <cstring>

#include "base/math.h"
#include "kernels/avx512/int_core.h"

// Many rows: a block of two strips is unpacked once to signed bytes, into a panel in the first-level cache, and all
// tiles of rows are multiplied with it. One long software pipeline: between the dot products of a tile run the fp32
// work of the tile before and the unpacking of the next block.
namespace cachalot::avx512 {
namespace {

constexpr int kStrips = 2;
constexpr int64_t kUnpackAhead =
    2048;  // bytes to prefetch: blocks take long, and must not be evicted before their turn

// One block of the strips: weights without their zero points. The rows are biased by 128, so the sums start at
// -128 * sum(w).
template <class Block>
struct alignas(64) Panel {
  std::byte weights[Block::kQuads][kStrips][64];
  __m512i starts[kStrips];
  __m512 scales[kStrips];
};

// Unpacks a block of one strip, a vector a call, in order.
template <class Block>
class Unpacker {
 public:
  template <int kVector>
  CACHALOT_INLINE void vector(const std::byte* block, int strip, Panel<Block>& panel) {
    if constexpr (kVector == 0) {
      sums_ = _mm512_setzero_si512();
      if constexpr (Block::kNibbles)  // each output's dword to its four bytes
        zeros_ = _mm512_shuffle_epi8(Block::zeros(block), _mm512_set4_epi32(0x0c0c0c0c, 0x08080808, 0x04040404, 0));
      prefetch(block + kUnpackAhead + Block::kScales);
    }
    const __m512i bytes = load(block + 64 * kVector);
    prefetch(block + kUnpackAhead + 64 * kVector);
    if constexpr (Block::kNibbles) {
      const __m512i low = Block::low(bytes), high = Block::high(bytes);
      _mm512_store_si512(panel.weights[2 * kVector][strip], _mm512_sub_epi8(low, zeros_));
      _mm512_store_si512(panel.weights[2 * kVector + 1][strip], _mm512_sub_epi8(high, zeros_));
      sums_ = _mm512_add_epi8(sums_, _mm512_add_epi8(low, high));  // at most 16 * 15, 8 * 24
    } else {
      _mm512_store_si512(panel.weights[kVector][strip], bytes);
      sums_ = _mm512_dpbusd_epi32(sums_, bias(), bytes);
    }
    if constexpr (kVector == Block::kVectors - 1) panel.starts[strip] = start(block);
  }

 private:
  CACHALOT_INLINE __m512i start(const std::byte* block) const {
    if constexpr (Block::kNibbles) {  // 128 * (inputs * zero - sum(q)), the sum by its bytes
      const __m512i zeros = _mm512_mullo_epi32(Block::zeros(block), _mm512_set1_epi32(128 * Block::kInputs));
      return _mm512_dpbusd_epi32(zeros, sums_, bias());  // as a signed byte, the bias is -128
    } else {
      return _mm512_sub_epi32(_mm512_setzero_si512(), sums_);
    }
  }

  __m512i zeros_, sums_;
};

template <class Block>
void unpack(const std::byte* const (&blocks)[kStrips], Panel<Block>& panel) {
  for (int strip = 0; strip < kStrips; strip++) {
    Unpacker<Block> unpacker;
    unroll<Block::kVectors>([&](auto v) CACHALOT_INLINE { unpacker.template vector<v>(blocks[strip], strip, panel); });
    panel.scales[strip] = Block::scales(blocks[strip]);
  }
}

// Two strips times tiles of kRows rows.
template <class Block, int kRows>
class ManyRows {
  static constexpr int kSums = kStrips * kRows;  // of row r and strip s: r * kStrips + s, as in the results
  static constexpr int kFinishedAQuad = ceil_div(kSums, Block::kQuads);
  static constexpr int kUnpackedAQuad = kStrips * Block::kVectors / Block::kQuads;

 public:
  [[gnu::noinline]] static void multiply(const IntCoreArgs& args, int64_t num_blocks, int num_tiles) {
    float* const out = args.out;  // [num_tiles * kRows][s][16 outputs]
    const auto* records = reinterpret_cast<const int32_t*>(args.prepared);
    int64_t fetched_rows = 0;  // of the results' targets
    std::memset(out, 0, sizeof(float) * static_cast<size_t>(num_tiles * kSums * kStrip));
    Panel<Block> panels[2];
    const std::byte* blocks[kStrips] = {args.strips[0], args.strips[1]};
    unpack<Block>(blocks, panels[0]);
    alignas(64) float nothing[kSums * kStrip] = {};
    Tile last{};
    last.scales = panels[0].scales;
    last.row_scales = reinterpret_cast<const float*>(records) + Block::kQuads * kRows;
    last.out = nothing;
    for (int64_t block = 0; block < num_blocks; block++) {
      const Panel<Block>& panel = panels[block % 2];
      for (const int64_t end = args.num_rows * (block + 1) / num_blocks; fetched_rows < end; fetched_rows++)
        prefetch_targets(args.targets, fetched_rows);
      // Tiles come one after another, each with all its blocks.
      const int32_t* record = records + block * kRecord;
      float* tile_out = out;
      int tile = 0;
      if (block + 1 < num_blocks) {
        for (const std::byte*& next : blocks) next += Block::kBytes;
        add_tile<true>(panel, record, tile_out, last, blocks, panels[(block + 1) % 2]);
        tile = 1, record += kRecord * num_blocks, tile_out += kSums * kStrip;
      }
      for (; tile < num_tiles; tile++, record += kRecord * num_blocks, tile_out += kSums * kStrip)
        add_tile<false>(panel, record, tile_out, last, blocks, panels[(block + 1) % 2]);
    }
    unroll<kSums>([&](auto i) CACHALOT_INLINE { finish<i>(last); });
  }

 private:
  static constexpr int64_t kRecord = (Block::kQuads + 2) * kRows;

  // The sums of a tile that wait to be scaled and added to the results.
  struct Tile {
    __m512i sums[kSums];
    const __m512* scales;
    const float* row_scales;
    float* out;
  };

  template <int kIdx>
  CACHALOT_INLINE static void finish(const Tile& tile) {
    float* out = tile.out + kIdx * kStrip;
    _mm512_store_ps(out, add_block(tile.sums[kIdx], tile.scales[kIdx % kStrips], tile.row_scales[kIdx / kStrips],
                                   _mm512_load_ps(out)));
  }

  template <bool kUnpack>
  CACHALOT_INLINE static void add_tile(const Panel<Block>& panel, const int32_t* record, float* out, Tile& last,
                                       const std::byte* const (&next)[kStrips], Panel<Block>& next_panel) {
    __m512i sums[kSums];
    Unpacker<Block> unpacker;
    unroll<kSums>([&](auto i) CACHALOT_INLINE { sums[i] = panel.starts[i % kStrips]; });
    unroll<Block::kQuads>([&](auto quad) CACHALOT_INLINE {
      __m512i weights[kStrips];
      unroll<kStrips>([&](auto s) CACHALOT_INLINE { weights[s] = _mm512_load_si512(panel.weights[quad][s]); });
      unroll<kRows>([&](auto r) CACHALOT_INLINE {
        const __m512i inputs = broadcast(record + quad * kRows + r);
        unroll<kStrips>([&](auto s) CACHALOT_INLINE { dot(sums[r * kStrips + s], inputs, weights[s]); });
      });
      unroll<kFinishedAQuad>([&](auto k) CACHALOT_INLINE {
        if constexpr (quad * kFinishedAQuad + k < kSums) finish<quad * kFinishedAQuad + k>(last);
      });
      if constexpr (kUnpack) {
        unroll<kUnpackedAQuad>([&](auto k) CACHALOT_INLINE {
          constexpr int step = quad * kUnpackedAQuad + k, strip = step / Block::kVectors;
          unpacker.template vector<step % Block::kVectors>(next[strip], strip, next_panel);
        });
      }
    });
    if constexpr (kUnpack)  // not before the last tile has used the panel's old scales
      unroll<kStrips>([&](auto s) CACHALOT_INLINE { next_panel.scales[s] = Block::scales(next[s]); });
    unroll<kSums>([&](auto i) CACHALOT_INLINE { last.sums[i] = sums[i]; });
    last.scales = panel.scales;
    last.row_scales = reinterpret_cast<const float*>(record) + Block::kQuads * kRows;
    last.out = out;
  }
};

template <class Block>
void multiply(const IntCoreArgs& args) {
  const RowTiles tiles(args.num_rows);
  const int64_t num_blocks = ceil_div(args.shape.in_features, Block::kInputs);
  static_assert(kPanelTileRows == 6);
  if (tiles.tile_rows == 6) {
    ManyRows<Block, 6>::multiply(args, num_blocks, tiles.num_tiles);
  } else if (tiles.tile_rows == 5) {
    ManyRows<Block, 5>::multiply(args, num_blocks, tiles.num_tiles);
  } else {
    ManyRows<Block, 4>::multiply(args, num_blocks, tiles.num_tiles);
  }
}

}  // namespace

void multiply_many_rows(const IntCoreArgs& args) {
  with_block_of<Int4, Int8>(args.shape, [&]<class Block>() { multiply<Block>(args); });
}

}  // namespace cachalot::avx512
