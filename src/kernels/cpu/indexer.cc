#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <span>

#include "base/error.h"
#include "base/math.h"
#include "kernels/shape_check.h"

// What an indexer of sparse attention scores positions by, and which it chooses. The rule of numbers, the same on every
// level and for any other rows, chunks and threads:
//
// - dot = chain of fma over the key's dimensions; score = chain of fma(weight * weight_scale, max(dot, 0), score) over
//   the heads, in order, from 0.
// - Chosen are the largest scores; of equal ones, -0 and +0 among them, those of lower positions.
namespace cachalot {
namespace {

constexpr int64_t kScoredRows = 16;          // whose scores are kept at a time
constexpr int64_t kScoredSpan = 512;         // positions that a thread scores at a time
constexpr int kDigits = 3, kDigitBits = 11;  // of 32 bits, from the highest

// How the driver lays out its scratch: one packed tile a thread, the scaled weights and the scores of some rows.
struct IndexerScratch {
  View<float, 2> keys;     // [num_threads, dim * kAttentionTile]
  View<float, 2> weights;  // [kScoredRows, num_heads]
  View<float, 2> scores;   // [kScoredRows, whole tiles of positions]
  size_t bytes = 0;

  IndexerScratch(int64_t num_threads, int64_t num_heads, int64_t dim, int64_t num_positions, std::byte* memory) {
    Carver carver(memory);
    keys = carver.take<float>(num_threads, dim * kAttentionTile);
    weights = carver.take<float>(kScoredRows, num_heads);
    scores = carver.take<float>(kScoredRows, round_up(num_positions, kAttentionTile));
    bytes = carver.used();
  }
};

// Numbers in the order of the scores; -0 is 0.
uint32_t ordered(float score) {
  const auto bits = std::bit_cast<uint32_t>(score + 0.f);
  return bits & 0x8000'0000u ? ~bits : bits | 0x8000'0000u;
}

// The `count`-th largest number of all, digit by digit; `count` becomes how many of its equals are among the first
// `count`.
uint32_t nth_largest(std::span<const float> scores, int64_t& count) {
  uint32_t prefix = 0;
  for (int digit = 0; digit < kDigits; digit++) {
    const int shift = std::max(32 - (digit + 1) * kDigitBits, 0), known = 32 - digit * kDigitBits;
    const uint32_t mask = digit == 0 ? 0 : ~uint32_t{0} << known;
    const uint32_t digit_mask = (uint32_t{1} << std::min(kDigitBits, known)) - 1;
    std::array<int32_t, 1 << kDigitBits> counts{};
    for (const float score : scores) {
      const uint32_t number = ordered(score);
      if ((number & mask) == prefix) counts[number >> shift & digit_mask]++;
    }
    uint32_t value = digit_mask;
    for (; counts[value] < count; value--) count -= counts[value];
    prefix |= value << shift;
  }
  return prefix;
}

void take_best(std::span<const float> scores, std::span<int32_t> chosen) {
  int64_t num_equals = std::ssize(chosen);
  const uint32_t last = nth_largest(scores, num_equals);
  size_t place = 0;
  for (int32_t position = 0; place < chosen.size(); position++) {
    const uint32_t number = ordered(scores[static_cast<size_t>(position)]);
    chosen[place] = position;
    const bool equal = number == last;
    place += number > last || (equal && num_equals > 0) ? 1 : 0;
    num_equals -= equal ? 1 : 0;
  }
}

class Choice {
 public:
  Choice(const OpsContext& context, const ChoosePositionsArgs& args, const IndexerScratch& scratch)
      : kernels_(*context.cores->attention), args_(args), threads_(*context.threads), scratch_(scratch) {}

  void run() {
    for (int64_t begin = 0; begin < std::ssize(args_.rows); begin += kScoredRows)
      choose_rows(begin, std::min(begin + kScoredRows, std::ssize(args_.rows)));
  }

 private:
  struct RowRange {
    int64_t begin = 0, end = 0;
  };

  const ScoredRow& row_at(int64_t row) const { return args_.rows[static_cast<size_t>(row)]; }
  int64_t num_seen(int64_t row) const { return row_at(row).position + 1; }
  bool sees_all(int64_t row) const { return num_seen(row) <= args_.chosen.extent(1); }

  void choose_rows(int64_t begin, int64_t end) const {
    // Rows of one sequence, which share its packed keys.
    std::array<RowRange, kScoredRows> groups;
    int64_t num_groups = 0, longest = 0;
    for (int64_t row = begin; row < end; row++) {
      scale_weights(row, row - begin);
      const bool first = row == begin || row_at(row).context.blocks.data() != row_at(row - 1).context.blocks.data();
      if (first) groups[static_cast<size_t>(num_groups++)] = {row, row};
      groups[static_cast<size_t>(num_groups - 1)].end = row + 1;
      if (!sees_all(row)) longest = std::max(longest, num_seen(row));
    }
    threads_.parallel_for(num_groups * ceil_div(longest, kScoredSpan), 1, [&](int64_t first, int64_t last, int thread) {
      for (int64_t item = first; item < last; item++)
        score_span(groups[static_cast<size_t>(item % num_groups)], begin, item / num_groups * kScoredSpan, thread);
    });
    threads_.parallel_for(end - begin, 1, [&](int64_t first, int64_t last, int) {
      for (int64_t row = begin + first; row < begin + last; row++) choose_row(row, row - begin);
    });
  }

  void scale_weights(int64_t row, int64_t store) const {
    for (int64_t head = 0; head < args_.q.extent(1); head++)
      scratch_.weights(store, head) = args_.head_weights(row, head) * args_.weight_scale;
  }

  // Scores of the rows that see more than they may choose, for the positions of a span that they see.
  void score_span(const RowRange& rows, int64_t first_row, int64_t first_position, int thread_idx) const {
    float* keys = scratch_.keys.row(thread_idx);
    const int64_t dim = args_.q.extent(2), num_heads = args_.q.extent(1);
    for (int64_t position = first_position; position < first_position + kScoredSpan; position += kAttentionTile) {
      int64_t most_seen = 0;
      for (int64_t row = rows.begin; row < rows.end; row++)
        if (!sees_all(row)) most_seen = std::max(most_seen, num_seen(row));
      if (most_seen <= position) return;
      const CachedContext& context = row_at(rows.begin).context;
      TileRows tile_rows;
      const int64_t num_positions = std::min(kAttentionTile + int64_t{0}, most_seen - position);
      cached_rows(context, {}, position, num_positions, 0, tile_rows);
      kernels_.pack_keys(tile_rows, context.cache.dtype(), num_positions, 0, dim, dim, keys);
      for (int64_t row = rows.begin; row < rows.end; row++) {
        if (sees_all(row) || num_seen(row) <= position) continue;
        const AttentionTile heads{.query = {{&args_.q(row, 0, 0), args_.q.stride(1), dim}, {}},
                                  .num_rows = num_heads,
                                  .keys = keys,
                                  .num_positions = std::min(num_positions, num_seen(row) - position)};
        kernels_.score_positions(heads, scratch_.weights.row(row - first_row),
                                 scratch_.scores.row(row - first_row) + position);
      }
    }
  }

  void choose_row(int64_t row, int64_t store) const {
    int32_t* chosen = args_.chosen.row(row);
    if (sees_all(row)) {
      for (int32_t position = 0; position < num_seen(row); position++) chosen[position] = position;
    } else {
      take_best({scratch_.scores.row(store), static_cast<size_t>(num_seen(row))},
                {chosen, static_cast<size_t>(args_.chosen.extent(1))});
    }
  }

  const AttentionKernels& kernels_;
  const ChoosePositionsArgs& args_;
  ThreadPool& threads_;
  const IndexerScratch& scratch_;
};

}  // namespace

void Ops::choose_positions(const ChoosePositionsArgs& args) const {
  const ShapeCheck check("choose_positions");
  const Dim num_rows{"num_rows", args.q.extent(0)}, num_heads{"num_heads", args.q.extent(1)};
  const Dim dim{"dim", args.q.extent(2)}, topk{"topk", args.chosen.extent(1)};
  check.at_most("num_heads", {"max_index_heads", limits_.max_index_heads}, num_heads.value);
  check.at_most("dim", {"max_index_dim", limits_.max_index_dim}, dim.value);
  check.shape("head_weights", args.head_weights, num_rows, num_heads);
  check.shape("chosen", args.chosen, num_rows, topk);
  check.equal("rows", num_rows, std::ssize(args.rows));
  int64_t num_positions = 0;
  for (const ScoredRow& row : args.rows) {
    check.at_most("a row's position", {"max_positions - 1", limits_.max_positions - 1}, row.position);
    check.equal("the cache", dim, row.context.cache.extent(1));
    check_context(check, row.context, row.position + 1, dim);
    num_positions = std::max<int64_t>(num_positions, row.position + 1);
  }
  const IndexerScratch scratch(threads_->num_threads(), num_heads.value, dim.value, num_positions, scratch_.data());
  CHECK(scratch.bytes <= indexer_scratch_bytes(limits_, threads_->num_threads()));
  Choice(context(), args, scratch).run();
}

size_t indexer_scratch_bytes(const OpsLimits& limits, int num_threads) {
  if (limits.max_index_heads == 0) return 0;
  return IndexerScratch(num_threads, limits.max_index_heads, limits.max_index_dim, limits.max_positions, nullptr).bytes;
}

}  // namespace cachalot
