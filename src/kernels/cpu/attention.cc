#include <algorithm>
#include <cstdint>
#include <limits>
#include <span>

#include "base/error.h"
#include "base/math.h"
#include "kernels/shape_check.h"

// Attention over the latents in the cache. The rule of numbers, the same on every level, for any other rows, chunks and
// threads, so that results are equal to the bit:
//
// - score of a row and a position = softmax_scale * (chain of fma over the key's dimensions: expanded, no-position part
//   then rotated part; absorbed, latent then rotated part).
// - Positions go in tiles of kAttentionTile, in order. A tile's visible positions change the state (max, sum, acc) of a
//   row: new max = max(max, scores); p = exp(score - new max), 0 where invisible; decay = exp(max - new max);
//   sum = fma(sum, decay, total of the tile's p), added by halves: p[i] + p[i + 32], then of those [i] + [i + 16], ...;
//   acc[d] = fma(acc[d], decay, chain of fma over p * value[d], positions in order).
// - Expanded: out = acc / sum at the end.
// - Absorbed: each span of kAttentionSpan positions has a state of its own, so that threads can share a long context.
//   The states are merged in order: new max = max of both, earlier = exp(its max - new max), later likewise;
//   sum = fma(sum, earlier, later sum * later), acc[d] = fma(acc[d], earlier, later acc[d] * later); out = acc / sum.
// - exp is that of kernels/cores.h.
namespace cachalot {
namespace {

constexpr int kAttentionSpan = 512;  // a multiple of kAttentionTile

// The states of all heads of one row over some positions.
struct AttentionStates {
  float* max = nullptr;  // [num_heads]
  float* sum = nullptr;
  float* acc = nullptr;  // [num_heads, dim], acc_stride apart
  int64_t acc_stride = 0;
};

// How the drivers lay out their scratch:
//   one packed tile a thread (keys, then values)
//   absorbed only: [rows][heads] maxima and sums, the list of pieces, and the states of later spans
class AttentionScratch {
 public:
  // A span of positions of one row of absorbed attention; a later one (span > 0) has states of its own in `slot`.
  struct Piece {
    int32_t row = 0, span = 0, slot = -1;
  };
  static constexpr int kSlotsPerThread = 4;  // spans of long contexts that are worked on at a time

  struct Sizes {
    int64_t num_threads = 0, key_dim = 0, value_dim = 0;
    int64_t num_rows = 0, num_heads = 0;  // absorbed only
    bool later_spans = false;

    int64_t num_slots() const { return later_spans ? num_threads * kSlotsPerThread : 0; }
  };

  // Of a region that begins at `memory`; with null, only the size is of use.
  AttentionScratch(const Sizes& sizes, std::byte* memory) : sizes_(sizes) {
    Carver carver(memory);
    keys_ = carver.take<float>(sizes.num_threads, sizes.key_dim * kAttentionTile);
    values_ = carver.take<float>(sizes.num_threads, round_up(sizes.value_dim, kWidestPanel) * kAttentionTile);
    totals_ = carver.take<float>(sizes.num_rows, 2 * sizes.num_heads);
    slots_ = carver.take<float>(sizes.num_slots(), sizes.num_heads * (sizes.value_dim + 2));
    pieces_ = carver.take<Piece>(sizes.num_rows + sizes.num_slots());
    bytes_ = carver.used();
  }

  size_t bytes() const { return bytes_; }

  float* keys(int thread_idx) const { return keys_.row(thread_idx); }
  float* values(int thread_idx) const { return values_.row(thread_idx); }
  Piece* pieces() const { return pieces_.data(); }

  AttentionStates totals(int64_t row, View<float, 2> acc) const {
    float* max = totals_.row(row);
    return {max, max + sizes_.num_heads, acc.data(), acc.stride(0)};
  }
  AttentionStates slot(int64_t slot_idx) const {
    float* max = slots_.row(slot_idx);
    return {max, max + sizes_.num_heads, max + 2 * sizes_.num_heads, sizes_.value_dim};
  }

 private:
  static constexpr int64_t kWidestPanel = 32;

  Sizes sizes_;
  View<float, 2> keys_, values_, totals_, slots_;
  View<Piece, 1> pieces_;
  size_t bytes_ = 0;
};

constexpr int64_t kFewestRows = 48;  // rows of a head that are worth packing its keys and values for
constexpr int64_t kFewestHeads = 8;  // heads of a row that are worth packing the latents for
constexpr int64_t kItemsPerThread = 3;

void float_rows(const float* first, int64_t stride, int64_t count, TileRows rows) {
  for (int64_t idx = 0; idx < kAttentionTile; idx++)
    rows[idx] = reinterpret_cast<const std::byte*>(first + std::min(idx, count - 1) * stride);
}

void clear(const AttentionTile& states) {
  for (int64_t row = 0; row < states.num_rows; row++) {
    states.max[row * states.state_stride] = -std::numeric_limits<float>::infinity();
    states.sum[row * states.state_stride] = 0;
    std::fill_n(states.acc + row * states.acc_stride, states.value_dim, 0.f);
  }
}

void divide(const AttentionKernels& kernels, const AttentionTile& states) {
  for (int64_t row = 0; row < states.num_rows; row++)
    kernels.divide(states.acc + row * states.acc_stride, states.sum[row * states.state_stride], states.value_dim);
}

// ---- expanded -------------------------------------------------------------------------------------------------------

// Rows [row_begin, row_end) of one head over the whole chunk.
void expanded_rows_of_head(const AttentionKernels& kernels, const ExpandedAttentionArgs& args, int64_t head,
                           int64_t row_begin, int64_t row_end, float* keys, float* values) {
  const int64_t key_dim = args.nope_dim + args.rope_dim, latent_dim = args.context.cache.extent(1) - args.rope_dim;
  AttentionTile tile{.query = {{&args.q(row_begin, head, 0), args.q.stride(0), key_dim}, {}},
                     .num_rows = row_end - row_begin,
                     .keys = keys,
                     .values = values,
                     .value_dim = args.out.extent(2),
                     .visible_step = 1,
                     .softmax_scale = args.softmax_scale,
                     .acc = &args.out(row_begin, head, 0),
                     .max = &args.row_max(row_begin, head),
                     .sum = &args.row_sum(row_begin, head),
                     .acc_stride = args.out.stride(0),
                     .state_stride = args.row_max.stride(0)};
  if (args.first_chunk) clear(tile);
  // Of the chunk, the first row sees `visible` positions, each later row one more.
  const int64_t visible = args.first_row_position + row_begin + 1 - args.first_chunk_position;
  const int64_t last = std::min(visible + tile.num_rows - 1, args.kv.extent(0));
  for (int64_t position = 0; position < last; position += kAttentionTile) {
    tile.num_positions = std::min<int64_t>(kAttentionTile, last - position);
    tile.visible = visible - position;
    TileRows rows;
    const float* kv = &args.kv(position, head, 0);
    float_rows(kv, args.kv.stride(0), tile.num_positions, rows);
    kernels.pack_keys(rows, DType::kF32, tile.num_positions, 0, args.nope_dim, key_dim, keys);
    float_rows(kv + args.nope_dim, args.kv.stride(0), tile.num_positions, rows);
    kernels.pack_values(rows, DType::kF32, tile.num_positions, tile.value_dim, values);
    cached_rows(args.context, {}, args.first_chunk_position + position, tile.num_positions, latent_dim, rows);
    kernels.pack_keys(rows, args.context.cache.dtype(), tile.num_positions, args.nope_dim, args.rope_dim, key_dim,
                      keys);
    kernels.attend(tile);
  }
  if (args.last_chunk) divide(kernels, tile);
}

}  // namespace

void Ops::attend_expanded(const ExpandedAttentionArgs& args) const {
  const ShapeCheck check("attend_expanded");
  const Dim num_rows{"num_rows", args.q.extent(0)}, num_heads{"num_heads", args.q.extent(1)};
  const Dim v_dim{"v_dim", args.out.extent(2)}, chunk_positions{"chunk_positions", args.kv.extent(0)};
  check.at_most("num_rows", {"max_rows", limits_.max_rows}, num_rows.value);
  check.at_most("num_heads", {"max_heads", limits_.max_heads}, num_heads.value);
  check.at_most("nope_dim + rope_dim", {"max_head_dim", limits_.max_head_dim}, args.q.extent(2));
  check.at_most("v_dim", {"max_head_dim", limits_.max_head_dim}, v_dim.value);
  check.equal("q", {"nope_dim + rope_dim", args.nope_dim + args.rope_dim}, args.q.extent(2));
  check.shape("kv", args.kv, chunk_positions, num_heads, Dim{"nope_dim + v_dim", args.nope_dim + v_dim.value});
  check.shape("out", args.out, num_rows, num_heads, v_dim);
  check.shape("row_max", args.row_max, num_rows, num_heads);
  check.shape("row_sum", args.row_sum, num_rows, num_heads);
  check.multiple("first_chunk_position", {"kAttentionTile", kAttentionTile}, args.first_chunk_position);
  check_context(check, args.context, args.first_chunk_position + chunk_positions.value, {"rope_dim", args.rope_dim});
  if (num_rows.value == 0) return;
  const int64_t num_threads = threads_->num_threads();
  const AttentionScratch scratch({.num_threads = num_threads, .key_dim = args.q.extent(2), .value_dim = v_dim.value},
                                 scratch_.data());
  CHECK(scratch.bytes() <= attention_scratch_bytes(limits_, threads_->num_threads()));
  // Heads apart; where they are few, also blocks of rows, the last (which see most) first.
  const int64_t wanted = ceil_div(kItemsPerThread * num_threads, num_heads.value);
  const int64_t most_blocks = ceil_div(num_rows.value, kFewestRows);
  const int64_t block_rows = ceil_div(num_rows.value, std::clamp<int64_t>(wanted, 1, most_blocks));
  const int64_t num_blocks = ceil_div(num_rows.value, block_rows);
  threads_->parallel_for(num_heads.value * num_blocks, 1, [&](int64_t begin, int64_t end, int thread_idx) {
    for (int64_t item = begin; item < end; item++) {
      const int64_t head = item % num_heads.value, row_begin = (num_blocks - 1 - item / num_heads.value) * block_rows;
      expanded_rows_of_head(*cores_->attention, args, head, row_begin, std::min(row_begin + block_rows, num_rows.value),
                            scratch.keys(thread_idx), scratch.values(thread_idx));
    }
  });
}

// ---- absorbed -------------------------------------------------------------------------------------------------------

namespace {

using Piece = AttentionScratch::Piece;

class AbsorbedAttention {
 public:
  AbsorbedAttention(const OpsContext& context, const AbsorbedAttentionArgs& args)
      : kernels_(*context.cores->attention),
        args_(args),
        threads_(*context.threads),
        latent_dim_(args.q_latent.extent(2)),
        num_heads_(args.q_latent.extent(1)),
        scratch_({.num_threads = threads_.num_threads(),
                  .key_dim = latent_dim_ + args.q_rope.extent(2),
                  .value_dim = latent_dim_,
                  .num_rows = args.q_latent.extent(0),
                  .num_heads = num_heads_,
                  .later_spans = has_later_spans(args)},
                 context.scratch.data()) {}

  size_t scratch_bytes() const { return scratch_.bytes(); }

  // In rounds, since there are not states for all spans of long contexts at a time: pieces are computed, in parallel
  // over pieces and heads, then those of later spans merged into their rows, in order.
  void run() {
    for (Piece next; next.row < std::ssize(args_.rows);) {
      const std::span<const Piece> pieces = next_round(next);
      const int64_t wanted = ceil_div(kItemsPerThread * threads_.num_threads(), std::ssize(pieces));
      const int64_t group_heads =
          ceil_div(num_heads_, std::clamp<int64_t>(wanted, 1, ceil_div(num_heads_, kFewestHeads)));
      const int64_t num_groups = ceil_div(num_heads_, group_heads);
      threads_.parallel_for(std::ssize(pieces) * num_groups, 1, [&](int64_t begin, int64_t end, int thread_idx) {
        for (int64_t item = begin; item < end; item++) {
          const int64_t head = item % num_groups * group_heads;
          attend(pieces[static_cast<size_t>(item / num_groups)], head, std::min(head + group_heads, num_heads_),
                 thread_idx);
        }
      });
      if (std::ranges::none_of(pieces, [](const Piece& piece) { return piece.span > 0; })) continue;
      threads_.parallel_for(num_heads_, 1, [&](int64_t begin, int64_t end, int) {
        for (const Piece& piece : pieces)
          for (int64_t head = begin; head < end && piece.span > 0; head++) merge(piece, head);
      });
    }
  }

 private:
  static bool has_later_spans(const AbsorbedAttentionArgs& args) {
    return std::ranges::any_of(args.rows, [](const AbsorbedRow& row) { return row.num_places() > kAttentionSpan; });
  }

  int64_t num_places(const Piece& piece) const { return args_.rows[static_cast<size_t>(piece.row)].num_places(); }
  bool is_last(const Piece& piece) const { return num_places(piece) <= (piece.span + 1) * kAttentionSpan; }

  // Pieces from `next` on, as many as there are slots for; moves `next` behind them.
  std::span<const Piece> next_round(Piece& next) const {
    Piece* pieces = scratch_.pieces();
    size_t count = 0;
    const int64_t num_slots = AttentionScratch::kSlotsPerThread * threads_.num_threads();
    for (int32_t slot = 0; next.row < std::ssize(args_.rows);) {
      if (next.span > 0 && slot == num_slots) break;
      next.slot = next.span > 0 ? slot++ : -1;
      pieces[count++] = next;
      next = is_last(next) ? Piece{.row = next.row + 1} : Piece{.row = next.row, .span = next.span + 1};
    }
    return {pieces, count};
  }

  // The first span of a row is computed in the row's own states.
  AttentionStates states_of(const Piece& piece) const {
    return piece.span == 0 ? scratch_.totals(piece.row, args_.out[piece.row]) : scratch_.slot(piece.slot);
  }

  void attend(const Piece& piece, int64_t head_begin, int64_t head_end, int thread_idx) const {
    const AttentionStates states = states_of(piece);
    const View<const float, 3>&q_latent = args_.q_latent, &q_rope = args_.q_rope;
    float* keys = scratch_.keys(thread_idx);
    float* values = scratch_.values(thread_idx);
    AttentionTile tile{.query = {{&q_latent(piece.row, head_begin, 0), q_latent.stride(1), latent_dim_},
                                 {&q_rope(piece.row, head_begin, 0), q_rope.stride(1), q_rope.extent(2)}},
                       .num_rows = head_end - head_begin,
                       .keys = keys,
                       .values = values,
                       .value_dim = latent_dim_,
                       .softmax_scale = args_.softmax_scale,
                       .acc = states.acc + head_begin * states.acc_stride,
                       .max = states.max + head_begin,
                       .sum = states.sum + head_begin,
                       .acc_stride = states.acc_stride,
                       .state_stride = 1};
    clear(tile);
    const AbsorbedRow& row = args_.rows[static_cast<size_t>(piece.row)];
    const DType dtype = row.context.cache.dtype();
    const int64_t key_dim = latent_dim_ + q_rope.extent(2);
    const int64_t begin = piece.span * kAttentionSpan,
                  end = std::min<int64_t>(begin + kAttentionSpan, num_places(piece));
    for (int64_t place = begin; place < end; place += kAttentionTile) {
      tile.visible = tile.num_positions = std::min<int64_t>(kAttentionTile, end - place);
      TileRows rows;
      cached_rows(row.context, row.chosen, place, tile.num_positions, 0, rows);
      kernels_.pack_keys(rows, dtype, tile.num_positions, 0, key_dim, key_dim, keys);
      kernels_.pack_values(rows, dtype, tile.num_positions, latent_dim_, values);
      kernels_.attend(tile);
    }
    if (piece.span == 0 && is_last(piece)) divide(kernels_, tile);
  }

  void merge(const Piece& piece, int64_t head) const {
    const AttentionStates total = scratch_.totals(piece.row, args_.out[piece.row]), later = scratch_.slot(piece.slot);
    float* acc = total.acc + head * total.acc_stride;
    const float new_max = std::max(total.max[head], later.max[head]);
    const float factor = reference::exp_nonpositive(total.max[head] - new_max);
    const float later_factor = reference::exp_nonpositive(later.max[head] - new_max);
    total.max[head] = new_max;
    total.sum[head] = std::fma(total.sum[head], factor, later.sum[head] * later_factor);
    kernels_.merge(acc, factor, later.acc + head * later.acc_stride, later_factor, latent_dim_);
    if (is_last(piece)) kernels_.divide(acc, total.sum[head], latent_dim_);
  }

  const AttentionKernels& kernels_;
  const AbsorbedAttentionArgs& args_;
  ThreadPool& threads_;
  const int64_t latent_dim_, num_heads_;
  const AttentionScratch scratch_;
};

}  // namespace

void Ops::attend_absorbed(const AbsorbedAttentionArgs& args) const {
  const ShapeCheck check("attend_absorbed");
  const Dim num_rows{"num_rows", args.q_latent.extent(0)}, num_heads{"num_heads", args.q_latent.extent(1)};
  const Dim kv_lora_rank{"kv_lora_rank", args.q_latent.extent(2)}, rope_dim{"rope_dim", args.q_rope.extent(2)};
  check.at_most("num_rows", {"max_rows", limits_.max_rows}, num_rows.value);
  check.at_most("num_heads", {"max_heads", limits_.max_heads}, num_heads.value);
  check.at_most("kv_lora_rank", {"max_kv_lora_rank", limits_.max_kv_lora_rank}, kv_lora_rank.value);
  check.shape("q_rope", args.q_rope, num_rows, num_heads, rope_dim);
  check.shape("out", args.out, num_rows, num_heads, kv_lora_rank);
  check.equal("rows", num_rows, std::ssize(args.rows));
  for (const AbsorbedRow& row : args.rows) {
    check.at_most("a row's position", {"max_positions - 1", limits_.max_positions - 1}, row.position);
    check.equal("the cache", {"kv_lora_rank + rope_dim", kv_lora_rank.value + rope_dim.value},
                row.context.cache.extent(1));
    check_context(check, row.context, row.position + 1, kv_lora_rank);
    if (row.chosen.empty()) continue;
    check.at_most("the last chosen position", {"the row's", row.position}, row.chosen(row.chosen.extent(0) - 1));
    check.at_least("the first chosen position", {"the first", 0}, row.chosen(0));
  }
  AbsorbedAttention attention(context(), args);
  CHECK(attention.scratch_bytes() <= attention_scratch_bytes(limits_, threads_->num_threads()));
  attention.run();
}

size_t attention_scratch_bytes(const OpsLimits& limits, int num_threads) {
  const AttentionScratch scratch({.num_threads = num_threads,
                                  .key_dim = limits.max_kv_lora_rank + limits.max_head_dim,
                                  .value_dim = std::max(limits.max_kv_lora_rank, limits.max_head_dim),
                                  .num_rows = limits.max_rows,
                                  .num_heads = limits.max_heads,
                                  .later_spans = limits.max_positions > kAttentionSpan},
                                 nullptr);
  return scratch.bytes();
}

}  // namespace cachalot
