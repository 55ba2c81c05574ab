#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

#include "device/thread_pool.h"
#include "kernels/cores.h"
#include "kernels/ops.h"

namespace cachalot {

// Items shared out among threads. Each thread begins with a range of its own, so that it reads long streams; one that
// runs out takes the later half of what another has left, so that a core with other work on it slows only its own
// share. next() may be called by all threads at once, set() before them.
class WorkRanges {
 public:
  struct alignas(64) Range {
    std::atomic<uint64_t> ends{0};  // begin in the lower half, end in the upper; all of a range's state
  };

  explicit WorkRanges(std::span<Range> ranges) : ranges_(ranges) {}

  int num_threads() const { return static_cast<int>(ranges_.size()); }
  void set(int thread_idx, int64_t begin, int64_t end) {
    ranges_[static_cast<size_t>(thread_idx)].ends.store(pack(begin, end), std::memory_order_relaxed);
  }

  // An item that nobody else gets, or -1 if there is none left to take.
  int64_t next(int thread_idx) {
    Range& own = ranges_[static_cast<size_t>(thread_idx)];
    uint64_t ends = own.ends.load(std::memory_order_relaxed);
    while (begin_of(ends) < end_of(ends)) {
      if (exchange(own, ends, pack(begin_of(ends) + 1, end_of(ends)))) return begin_of(ends);
    }
    for (size_t offset = 1; offset < ranges_.size(); offset++) {
      const int64_t item = take_half(ranges_[(static_cast<size_t>(thread_idx) + offset) % ranges_.size()], own);
      if (item >= 0) return item;
    }
    return -1;
  }

 private:
  static uint64_t pack(int64_t begin, int64_t end) {
    return static_cast<uint64_t>(begin) | static_cast<uint64_t>(end) << 32;
  }
  static int64_t begin_of(uint64_t ends) { return static_cast<int64_t>(ends & 0xffffffffu); }
  static int64_t end_of(uint64_t ends) { return static_cast<int64_t>(ends >> 32); }
  static bool exchange(Range& range, uint64_t& expected, uint64_t desired) {
    return range.ends.compare_exchange_weak(expected, desired, std::memory_order_relaxed);
  }

  // The later half of `victim` becomes `own`, which is empty; gives its first item.
  static int64_t take_half(Range& victim, Range& own) {
    uint64_t ends = victim.ends.load(std::memory_order_relaxed);
    while (begin_of(ends) < end_of(ends)) {
      const int64_t begin = begin_of(ends), end = end_of(ends), middle = begin + (end - begin) / 2;
      if (!exchange(victim, ends, pack(begin, middle))) continue;
      own.ends.store(pack(middle + 1, end), std::memory_order_relaxed);
      return middle;
    }
    return -1;
  }

  std::span<Range> ranges_;
};

// Products of one or more matrices with runs of rows, shared out among threads. In integers, a work item is two strips
// (of a gated matrix two pairs of gate and up) from the matrix's two halves, for a block of rows: a thread that takes
// items in order reads two long streams, which gives nearly all of the memory's bandwidth. In floats, an item is up to
// four strips side by side, which the float core divides into streams itself.

// The rows of all products of a call.
struct ProductRows {
  LinearInput input;
  const int32_t* row_ids = nullptr;  // row i of the products is row row_ids[i] of the input; null: row i
  // Floats are rounded to int8 for integer matrices, by the rule of QuantizedRows.
  bool quantize = false;

  // Whether a product with this matrix is computed in integers.
  bool in_integers(const MatrixShape& shape) const {
    return shape.is_integer() && (quantize || input.quantized.group == shape.block_inputs);
  }
};

// One matrix and the rows that it takes.
struct ProductJob {
  const PackedMatrix* matrix = nullptr;
  int64_t first_row = 0, num_rows = 0;
  // By plan_products():
  int64_t first_item = 0;
  int64_t units_of_item = 0;  // a unit: a strip, or gate's and up's
  int64_t num_chunks = 0;     // items a block of rows
  int64_t rows_of_block = 0;  // the last block may be smaller

  int64_t num_row_blocks() const { return (num_rows + rows_of_block - 1) / rows_of_block; }
  int64_t num_items() const { return num_chunks * num_row_blocks(); }
};

enum class ProductKind {
  kPlain,  // every strip is a result
  kGated,  // strips 2i and 2i + 1 are gate and up; silu(gate) * up is a result
};

// Sixteen outputs of some rows: what a product gives to its sink, from any thread.
struct ResultTile {
  int64_t first_row = 0, num_rows = 0;  // of the products' rows
  int64_t first_output = 0;             // a multiple of kStrip; the last outputs may be padding
  const float* values = nullptr;        // [num_rows][kStrip], rows `stride` floats apart
  int64_t stride = 0;
};
struct ResultSink {
  FunctionRef<void(const ResultTile&)> store;
  // Where it stores row r's output o: target + row_ids[r] (null: r) * row_bytes + o * output_bytes; null if not worth a
  // prefetch.
  const std::byte* target = nullptr;
  int64_t row_bytes = 0, output_bytes = 0;
  const int32_t* row_ids = nullptr;
};

// A thread's working memory for products with matrices of at most `max_inputs` inputs.
class ProductScratch {
 public:
  ProductScratch(const LinearCores& cores, int64_t max_rows, int64_t max_inputs, std::byte* memory);
  size_t bytes() const { return size_; }  // also with null memory

 private:
  friend class ProductWorker;
  const LinearCores* cores_;
  const int8_t** int_rows_;   // [kMostIntRows]
  const float** int_scales_;  // [kMostIntRows]
  const float** float_rows_;  // [kMostIntRows]
  float* tiles_;              // [2][kIntTileRows][2][kStrip]
  int8_t* quantized_values_;  // [rows, max_inputs]
  float* quantized_scales_;   // [rows, groups]
  std::byte* prepared_;       // rows for the integer core, or expanded to floats
  size_t size_;
};

// Splits each job into items and gives the threads their first ranges. Jobs have at least one row.
void plan_products(std::span<ProductJob> jobs, ProductKind kind, const ProductRows& rows, WorkRanges& ranges);

// A thread's share of the planned products. All threads call it with the same arguments but their own scratch.
void run_products(std::span<const ProductJob> jobs, ProductKind kind, const ProductRows& rows, WorkRanges& ranges,
                  int thread_idx, ProductScratch& scratch, const ResultSink& sink);

}  // namespace cachalot
