#include <xmmintrin.h>

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "base/math.h"
#include "kernels/cpu/product.h"
#include "kernels/shape_check.h"

namespace cachalot {
namespace {

constexpr int64_t kStreamedRows = 96;       // results of so many rows are not read again before caches have lost them
constexpr int64_t kQuantizedAlone = 16384;  // numbers that are not worth waking the other threads
constexpr int64_t kQuantizedAtOnce = 2048;  // inputs of a row that a thread quantizes at a time: whole groups

// What one call works on.
struct Sizes {
  int num_threads = 1;
  int64_t num_rows = 0;    // of one matrix, at most
  int64_t num_jobs = 1;    // matrices, at most
  int64_t max_inputs = 0;  // of any matrix
};

// The scratch of a call: the threads' ranges of two phases, their jobs, each thread's own memory, and behind it
// whatever is left for the products between the phases.
class Workspace {
 public:
  Workspace(const LinearCores& cores, const Sizes& sizes, std::byte* memory) : cores_(cores), sizes_(sizes) {
    Carver carver(memory);
    for (WorkRanges::Range*& ranges : ranges_) ranges = carver.take<WorkRanges::Range>(sizes.num_threads).data();
    for (ProductJob*& jobs : jobs_) jobs = carver.take<ProductJob>(sizes.num_jobs).data();
    thread_bytes_ = ProductScratch(cores, sizes.num_rows, sizes.max_inputs, nullptr).bytes();
    thread_memory_ = carver.take<std::byte>(static_cast<int64_t>(thread_bytes_) * sizes.num_threads).data();
    rest_ = memory ? reinterpret_cast<float*>(memory + carver.used()) : nullptr;
    bytes_ = carver.used();
  }
  static Workspace of_call(const OpsContext& context, const Sizes& sizes) {
    Workspace workspace(*context.cores->linear, sizes, context.scratch.data());
    CHECK(workspace.bytes_ <= context.scratch.size(), "linears need {} bytes of scratch and have {}", workspace.bytes_,
          context.scratch.size());
    workspace.rest_floats_ = static_cast<int64_t>((context.scratch.size() - workspace.bytes_) / sizeof(float));
    return workspace;
  }

  size_t bytes() const { return bytes_; }
  WorkRanges ranges(int phase) const { return WorkRanges({ranges_[phase], static_cast<size_t>(sizes_.num_threads)}); }
  ProductJob* jobs(int phase) const { return jobs_[phase]; }
  ProductScratch scratch_of(int thread_idx) const {
    return {cores_, sizes_.num_rows, sizes_.max_inputs,
            thread_memory_ + thread_bytes_ * static_cast<size_t>(thread_idx)};
  }
  // Rows of floats between the phases.
  View<float, 2> rows(int64_t num_rows, int64_t features) const {
    CHECK(num_rows <= most_rows(features), "{} rows of {} floats in scratch for {} floats", num_rows, features,
          rest_floats_);
    return {rest_, {num_rows, features}, {row_floats(features), 1}};
  }
  int64_t most_rows(int64_t features) const { return rest_floats_ / row_floats(features); }
  static int64_t row_floats(int64_t features) { return round_up(features, kStrip); }

 private:
  const LinearCores& cores_;
  Sizes sizes_;
  WorkRanges::Range* ranges_[2];
  ProductJob* jobs_[2];
  std::byte* thread_memory_;
  size_t thread_bytes_, bytes_;
  float* rest_;
  int64_t rest_floats_ = 0;
};

// ---- sinks ----

// Columns of a tile that are no padding.
size_t real_columns(const ResultTile& tile, int64_t features) {
  return static_cast<size_t>(std::min<int64_t>(kStrip, features - tile.first_output));
}

template <class T>
void copy_columns(const T* from, size_t columns, T* to) {
  if (columns == kStrip) {
    std::memcpy(to, from, kStrip * sizeof(T));  // inlined: a call costs as much again
  } else {
    std::memcpy(to, from, columns * sizeof(T));
  }
}

// Past the caches, whole lines.
void stream_floats(const ResultTile& tile, float* first, int64_t out_stride) {
  for (int64_t row = 0; row < tile.num_rows; row++) {
    for (int column = 0; column < kStrip; column += 4)
      _mm_stream_ps(first + row * out_stride + column, _mm_load_ps(tile.values + row * tile.stride + column));
  }
}

void store_floats(const ResultTile& tile, View<float, 2> out, bool streamed) {
  float* first = out.row(tile.first_row) + tile.first_output;
  const bool whole_lines = reinterpret_cast<uintptr_t>(first) % 64 == 0 && out.stride(0) % kStrip == 0;
  if (streamed && whole_lines && real_columns(tile, out.extent(1)) == kStrip)
    return stream_floats(tile, first, out.stride(0));
  const size_t columns = real_columns(tile, out.extent(1));
  for (int64_t row = 0; row < tile.num_rows; row++) {
    copy_columns(tile.values + row * tile.stride, columns, first + row * out.stride(0));
  }
}

// Row r of the tile, of elements of any size, to row row_ids[r] of out.
template <class T>
void scatter_rows(const ResultTile& tile, const T* values, int64_t stride, const int32_t* row_ids, View<T, 2> out) {
  const size_t columns = real_columns(tile, out.extent(1));
  for (int64_t row = 0; row < tile.num_rows; row++, values += stride) {
    copy_columns(values, columns, out.row(row_ids[row]) + tile.first_output);
  }
}

void scatter_compute(const LinearCores& cores, const ResultTile& tile, const int32_t* row_ids,
                     const ComputeView<2>& out) {
  if (out.dtype() == DType::kBF16) {
    bf16 values[kMostIntRows * kStrip];
    cores.store_bf16(tile.values, tile.stride, tile.num_rows, values, kStrip);
    scatter_rows(tile, values, kStrip, row_ids, out.as<bf16>());
  } else {
    scatter_rows(tile, tile.values, tile.stride, row_ids, out.as<float>());
  }
}

ResultSink sink_of(FunctionRef<void(const ResultTile&)> store, const void* target, int64_t row_elements,
                   size_t element_bytes) {
  const auto bytes = static_cast<int64_t>(element_bytes);
  return {.store = store,
          .target = static_cast<const std::byte*>(target),
          .row_bytes = row_elements * bytes,
          .output_bytes = bytes};
}
ResultSink sink_of(FunctionRef<void(const ResultTile&)> store, View<float, 2> out) {
  return sink_of(store, out.data(), out.stride(0), sizeof(float));
}

// ---- quantizing ----

// Threads take pieces of rows, by the pool's first counter.
void quantize_rows(const LinearCores& cores, ThreadPool& threads, View<const float, 2> rows, const QuantizedRows& out) {
  const int64_t pieces = ceil_div(rows.extent(1), kQuantizedAtOnce);
  for (int64_t item; (item = threads.next()) < rows.extent(0) * pieces;) {
    const int64_t row = item / pieces, begin = item % pieces * kQuantizedAtOnce;
    const int64_t count = std::min(kQuantizedAtOnce, rows.extent(1) - begin);
    cores.quantize(rows.row(row) + begin, count, out.group, out.values.row(row) + begin,
                   out.scales.row(row) + begin / out.group);
  }
}

// ---- one matrix ----

Workspace one_product(const OpsContext& context, const LinearInput& input, const PackedMatrix& matrix) {
  return Workspace::of_call(context, {.num_threads = context.threads->num_threads(),
                                      .num_rows = input.num_rows(),
                                      .max_inputs = matrix.shape.in_features});
}

// Each thread ends with `then`.
template <class Then>
void run_product(ThreadPool& threads, const Workspace& workspace, const LinearInput& input, const PackedMatrix& matrix,
                 ProductKind kind, const ResultSink& sink, Then then) {
  ProductJob job{.matrix = &matrix, .num_rows = input.num_rows()};
  const ProductRows rows{.input = input};
  WorkRanges ranges = workspace.ranges(0);
  plan_products({&job, 1}, kind, rows, ranges);
  threads.run([&](int thread_idx) {
    ProductScratch scratch = workspace.scratch_of(thread_idx);
    run_products({&job, 1}, kind, rows, ranges, thread_idx, scratch, sink);
    then();
  });
}

// ---- experts ----

// Experts' rows [first_pair, first_pair + num_pairs), as many as the memory between the phases holds.
class ExpertsPass {
 public:
  ExpertsPass(const ExpertsArgs& args, const Workspace& workspace, int64_t first_pair)
      : args_(args), workspace_(workspace), first_pair_(first_pair) {
    const int64_t end = std::min<int64_t>(args.offsets.back(), first_pair + workspace.most_rows(args.width));
    CHECK(end > first_pair, "no scratch for an expert's row");
    num_pairs_ = end - first_pair;
    for (size_t expert = 0; expert + 1 < args.offsets.size(); expert++) {
      const int64_t pair_begin = std::max<int64_t>(args.offsets[expert], first_pair);
      const int64_t pair_end = std::min<int64_t>(args.offsets[expert + 1], end);
      if (pair_begin >= pair_end) continue;
      add_job(0, args.gate_up[expert], pair_begin, pair_end);
      add_job(1, args.down[expert], pair_begin, pair_end);
      num_jobs_++;
    }
  }

  int64_t num_pairs() const { return num_pairs_; }

  void run(const LinearCores& cores, ThreadPool& threads) {
    const View<float, 2> products = workspace_.rows(num_pairs_, args_.width);
    const ProductRows inputs{.input = args_.rows, .row_ids = args_.pair_rows.data() + first_pair_};
    const ProductRows between{.input = {.values = products, .quantized = {}},
                              .quantize = !args_.rows.quantized.empty()};
    WorkRanges ranges[2] = {workspace_.ranges(0), workspace_.ranges(1)};
    plan_products(jobs(0), ProductKind::kGated, inputs, ranges[0]);
    plan_products(jobs(1), ProductKind::kPlain, between, ranges[1]);
    const auto keep = [&](const ResultTile& tile) { store_floats(tile, products, false); };
    const int32_t* out_rows = args_.out_rows.data() + first_pair_;
    const auto finish = [&](const ResultTile& tile) {
      scatter_compute(cores, tile, out_rows + tile.first_row, args_.out);
    };
    ResultSink sinks[2] = {sink_of(keep, products),
                           sink_of(finish, args_.out.data(), args_.out.stride(0), dtype_size(args_.out.dtype()))};
    sinks[1].row_ids = out_rows;
    threads.run([&](int thread_idx) {
      ProductScratch scratch = workspace_.scratch_of(thread_idx);
      run_products(jobs(0), ProductKind::kGated, inputs, ranges[0], thread_idx, scratch, sinks[0]);
      threads.barrier();
      run_products(jobs(1), ProductKind::kPlain, between, ranges[1], thread_idx, scratch, sinks[1]);
    });
  }

 private:
  void add_job(int phase, const PackedMatrix& matrix, int64_t pair_begin, int64_t pair_end) {
    workspace_.jobs(phase)[num_jobs_] = {
        .matrix = &matrix, .first_row = pair_begin - first_pair_, .num_rows = pair_end - pair_begin};
  }
  std::span<ProductJob> jobs(int phase) const { return {workspace_.jobs(phase), num_jobs_}; }

  const ExpertsArgs& args_;
  const Workspace& workspace_;
  int64_t first_pair_, num_pairs_;
  size_t num_jobs_ = 0;
};

}  // namespace

size_t linear_scratch_bytes(const LinearCores& cores, const OpsLimits& limits, int num_threads) {
  const Sizes sizes{.num_threads = num_threads,
                    .num_rows = std::max(limits.max_rows, limits.max_pairs),
                    .num_jobs = std::max<int64_t>(limits.max_pairs, 1),
                    .max_inputs = std::max(limits.max_in_features, limits.max_width)};
  const int64_t between = limits.max_rows * Workspace::row_floats(limits.max_width);
  return Workspace(cores, sizes, nullptr).bytes() + static_cast<size_t>(between) * sizeof(float);
}

void Ops::quantize(View<const float, 2> rows, const QuantizedRows& out) const {
  CHECK(!out.empty(), "quantize: nowhere to put the result");
  check_quantized(ShapeCheck("quantize"), out, {"num_rows", rows.extent(0)}, {"features", rows.extent(1)});
  const LinearCores& cores = *cores_->linear;
  ThreadPool& threads = *threads_;
  if (rows.size() <= kQuantizedAlone) {
    for (int64_t row = 0; row < rows.extent(0); row++)
      cores.quantize(rows.row(row), rows.extent(1), out.group, out.values.row(row), out.scales.row(row));
    return;
  }
  threads.run([&](int) { quantize_rows(cores, threads, rows, out); });
}

void Ops::linear(const LinearInput& input, const PackedMatrix& matrix, View<float, 2> out) const {
  const ShapeCheck check("linear");
  const Dim num_rows{"num_rows", input.num_rows()};
  check.at_most("num_rows", {"max_rows", limits_.max_rows}, num_rows.value);
  check.at_most("in_features", {"max_in_features", limits_.max_in_features}, matrix.shape.in_features);
  check_input(check, input, num_rows, {"in_features", matrix.shape.in_features});
  check.shape("out", out, num_rows, Dim{"out_features", matrix.shape.out_features});
  if (num_rows.value == 0) return;
  const bool streamed = input.num_rows() >= kStreamedRows;
  const auto store = [&](const ResultTile& tile) { store_floats(tile, out, streamed); };
  const ResultSink sink = streamed ? ResultSink{.store = store} : sink_of(store, out);
  run_product(*threads_, one_product(context(), input, matrix), input, matrix, ProductKind::kPlain, sink, [] {});
}

void Ops::gated_linear(const LinearInput& input, const PackedMatrix& gate_up, View<float, 2> out,
                       const QuantizedRows& quantized) const {
  const ShapeCheck check("gated_linear");
  const Dim num_rows{"num_rows", input.num_rows()}, in_features{"in_features", gate_up.shape.in_features};
  const Dim width{"width", out.empty() ? quantized.values.extent(1) : out.extent(1)};
  check.at_most("num_rows", {"max_rows", limits_.max_rows}, num_rows.value);
  check.at_most("in_features", {"max_in_features", limits_.max_in_features}, in_features.value);
  check.at_most("width", {"max_width", limits_.max_width}, width.value);
  check_input(check, input, num_rows, in_features);
  if (num_rows.value > 0) check_matrix(check, "gate_up", gate_up, gate_up_outputs(width.value), in_features);
  check_result(check, out, quantized, num_rows, width);
  if (num_rows.value == 0) return;
  ThreadPool& threads = *threads_;
  const Workspace workspace = one_product(context(), input, gate_up);
  const View<float, 2> product = out.empty() ? workspace.rows(input.num_rows(), quantized.values.extent(1)) : out;
  const auto store = [&](const ResultTile& tile) { store_floats(tile, product, false); };
  run_product(threads, workspace, input, gate_up, ProductKind::kGated, sink_of(store, product), [&] {
    if (quantized.empty()) return;
    threads.barrier();
    quantize_rows(*cores_->linear, threads, product, quantized);
  });
}

void Ops::experts(const ExpertsArgs& args) const {
  const ShapeCheck check("experts");
  const Dim num_experts{"num_local_experts", std::ssize(args.gate_up)},
      num_pairs{"num_pairs", args.pair_rows.extent(0)};
  const Dim num_rows{"num_rows", args.rows.num_rows()}, hidden{"hidden", args.out.extent(1)},
      width{"width", args.width};
  check.at_most("num_rows", {"max_rows", limits_.max_rows}, num_rows.value);
  check.at_most("num_pairs", {"max_pairs", limits_.max_pairs}, num_pairs.value);
  check.at_most("width", {"max_width", limits_.max_width}, width.value);
  check.at_most("hidden", {"max_in_features", limits_.max_in_features}, hidden.value);
  check_input(check, args.rows, num_rows, hidden);
  check.equal("down", num_experts, std::ssize(args.down));
  check.equal("offsets", {"num_local_experts + 1", num_experts.value + 1}, std::ssize(args.offsets));
  check.equal("the last offset", num_pairs, args.offsets.back());
  check.shape("out_rows", args.out_rows, num_pairs);
  check.at_least("the number of rows of out", num_pairs, args.out.extent(0));
  for (int64_t expert = 0; expert < num_experts.value; expert++) {
    check_matrix(check, "an expert's gate_up", args.gate_up[expert], gate_up_outputs(width.value), hidden);
    check_matrix(check, "an expert's down", args.down[expert], hidden, width);
  }
  if (num_pairs.value == 0) return;
  const Workspace workspace = Workspace::of_call(context(), {.num_threads = threads_->num_threads(),
                                                             .num_rows = num_pairs.value,
                                                             .num_jobs = std::min(num_pairs.value, num_experts.value),
                                                             .max_inputs = std::max(hidden.value, width.value)});
  for (int64_t first_pair = 0; first_pair < num_pairs.value;) {
    ExpertsPass pass(args, workspace, first_pair);
    pass.run(*cores_->linear, *threads_);
    first_pair += pass.num_pairs();
  }
}

namespace {

constexpr int64_t kRowTile = 64;          // rows a call of the core: what a stack array of row addresses holds
constexpr size_t kChunkBytes = 64 << 10;  // weights that a thread takes at a time: long enough for the prefetchers

// Strips [begin, end) of one head for rows [row_begin, row_begin + num_rows), at most kRowTile.
void linear_of_head(FloatCore core, const PackedMatrix& matrix, const float* const* rows, int64_t num_rows,
                    int64_t begin, int64_t end, float* out, int64_t out_stride) {
  const int64_t whole_end = std::min(end, matrix.shape.out_features / kStrip);
  FloatCoreArgs args{.matrix = matrix,
                     .strip_begin = begin,
                     .strip_end = whole_end,
                     .rows = rows,
                     .num_rows = num_rows,
                     .out = out + begin * kStrip,
                     .out_stride = out_stride};
  if (begin < whole_end) core(args);
  if (whole_end == end) return;
  // The last strip's padding must not reach the next head's outputs.
  alignas(64) float padded[kRowTile][kStrip];
  args.strip_begin = whole_end;
  args.strip_end = end;
  args.out = padded[0];
  args.out_stride = kStrip;
  core(args);
  const auto count = static_cast<size_t>(matrix.shape.out_features - whole_end * kStrip);
  for (int64_t row = 0; row < num_rows; row++)
    std::memcpy(out + row * out_stride + whole_end * kStrip, padded[row], count * sizeof(float));
}

}  // namespace

void Ops::per_head_linear(View<const float, 3> x, std::span<const PackedMatrix> matrices, View<float, 3> out) const {
  const ShapeCheck check("per_head_linear");
  check.at_most("num_rows", {"max_rows", limits_.max_rows}, x.extent(0));
  check.at_most("num_heads", {"max_heads", limits_.max_heads}, x.extent(1));
  check.equal("matrices", {"num_heads", x.extent(1)}, std::ssize(matrices));
  check.equal("out", {"num_rows", x.extent(0)}, out.extent(0));
  check.equal("out", {"num_heads", x.extent(1)}, out.extent(1));
  for (const PackedMatrix& matrix : matrices) {
    check_matrix(check, "a head's matrix", matrix, {"out_features", out.extent(2)}, {"in_features", x.extent(2)});
  }
  if (matrices.empty() || x.extent(0) == 0) return;
  const MatrixShape& shape = matrices[0].shape;  // the same for all heads
  const auto strips_of_chunk = static_cast<int64_t>(std::max<size_t>(kChunkBytes / shape.strip_bytes(), 1));
  const int64_t chunks = ceil_div(shape.num_strips(), strips_of_chunk);
  threads_->parallel_for(x.extent(1) * chunks, 1, [&](int64_t item_begin, int64_t item_end, int) {
    const float* rows[kRowTile];
    for (int64_t item = item_begin; item < item_end; item++) {
      const int64_t head = item / chunks, begin = item % chunks * strips_of_chunk;
      const int64_t end = std::min(begin + strips_of_chunk, shape.num_strips());
      for (int64_t row_begin = 0; row_begin < x.extent(0); row_begin += kRowTile) {
        const int64_t num_rows = std::min(kRowTile, x.extent(0) - row_begin);
        for (int64_t row = 0; row < num_rows; row++) rows[row] = &x(row_begin + row, head, 0);
        linear_of_head(cores_->linear->float_core, matrices[static_cast<size_t>(head)], rows, num_rows, begin, end,
                       &out(row_begin, head, 0), out.stride(0));
      }
    }
  });
}

}  // namespace cachalot
