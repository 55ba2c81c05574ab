#include "kernels/cpu/product.h"

#include <algorithm>

#include "base/math.h"

namespace cachalot {
namespace {

constexpr int64_t kTileWidth = 2 * kStrip;  // of a result of the integer core
constexpr int64_t kExpandedRows = 48;       // int8 rows expanded to floats at a time
constexpr int64_t kLeastBlockRows = 48;     // blocks of rows are not made smaller to have more items
constexpr int64_t kItemsOfThread = 4;       // what is aimed at
constexpr int64_t kFloatStrips = 4;         // of an item in floats, at most
constexpr int64_t kFloatTileWidth = kFloatStrips * kStrip;

int strips_of_unit(ProductKind kind) {
  return kind == ProductKind::kGated ? 2 : 1;
}

int64_t num_units(const ProductJob& job, ProductKind kind) {
  return job.matrix->shape.num_strips() / strips_of_unit(kind);
}

int64_t units_of_item(const ProductJob& job, ProductKind kind, const ProductRows& rows, int num_threads) {
  if (rows.in_integers(job.matrix->shape)) return 2;
  const int64_t wanted = num_units(job, kind) / (kItemsOfThread * num_threads);
  return std::clamp<int64_t>(wanted, 1, kFloatStrips / strips_of_unit(kind));
}

int64_t most_rows(const MatrixShape& shape, const ProductRows& rows) {
  const bool expanded = !rows.in_integers(shape) && rows.input.values.empty();
  return expanded ? kExpandedRows : kMostIntRows;
}

// Time for an item, roughly: its weights are read once, which takes as long as eight rows' arithmetic.
int64_t item_cost(const ProductJob& job) {
  constexpr int64_t kReadingInRows = 8;
  return static_cast<int64_t>(job.matrix->shape.strip_bytes()) *
         (kReadingInRows + std::min(job.num_rows, job.rows_of_block));
}

}  // namespace

// ---- ProductScratch ----

ProductScratch::ProductScratch(const LinearCores& cores, int64_t max_rows, int64_t max_inputs, std::byte* memory)
    : cores_(&cores) {
  const int64_t rows = std::min(max_rows, kMostIntRows);
  Carver carver(memory);
  int_rows_ = carver.take<const int8_t*>(rows).data();
  int_scales_ = carver.take<const float*>(rows).data();
  float_rows_ = carver.take<const float*>(rows).data();
  static_assert(kFloatTileWidth <= 2 * kTileWidth);
  tiles_ = carver.take<float>(2 * kIntTileRows * kTileWidth).data();
  quantized_values_ = carver.take<int8_t>(rows * max_inputs).data();
  quantized_scales_ = carver.take<float>(rows * ceil_div(max_inputs, kSmallestGroup)).data();
  const size_t expanded = static_cast<size_t>(std::min(rows, kExpandedRows) * max_inputs) * sizeof(float);
  prepared_ =
      carver.take<std::byte>(static_cast<int64_t>(std::max(cores.int_core->prepared_bytes(max_inputs, rows), expanded)))
          .data();
  size_ = carver.used();
}

// ---- planning ----

void plan_products(std::span<ProductJob> jobs, ProductKind kind, const ProductRows& rows, WorkRanges& ranges) {
  int64_t num_items = 0, total_cost = 0;
  for (ProductJob& job : jobs) {
    job.units_of_item = units_of_item(job, kind, rows, ranges.num_threads());
    job.num_chunks = ceil_div(num_units(job, kind), job.units_of_item);
    const int64_t wanted_blocks = ceil_div(kItemsOfThread * ranges.num_threads(), job.num_chunks);
    const int64_t num_blocks = std::max(ceil_div(job.num_rows, most_rows(job.matrix->shape, rows)),
                                        std::min(wanted_blocks, job.num_rows / kLeastBlockRows));
    job.rows_of_block = ceil_div(job.num_rows, num_blocks);
    job.first_item = num_items;
    num_items += job.num_items();
    total_cost += job.num_items() * item_cost(job);
  }
  int64_t begin = 0, cost_before = 0;  // of the current thread's range; of the current job
  size_t job_idx = 0;
  for (int thread_idx = 0; thread_idx < ranges.num_threads(); thread_idx++) {
    const int64_t cost_end = total_cost / ranges.num_threads() * (thread_idx + 1);
    const auto job_cost = [&] { return jobs[job_idx].num_items() * item_cost(jobs[job_idx]); };
    while (job_idx + 1 < jobs.size() && cost_before + job_cost() <= cost_end) cost_before += job_cost(), job_idx++;
    const int64_t items_of_job = (cost_end - cost_before + item_cost(jobs[job_idx]) / 2) / item_cost(jobs[job_idx]);
    const bool last = thread_idx + 1 == ranges.num_threads();
    const int64_t end = last ? num_items : std::clamp(jobs[job_idx].first_item + items_of_job, begin, num_items);
    ranges.set(thread_idx, begin, end);
    begin = end;
  }
}

// ---- running ----

class ProductWorker {
 public:
  ProductWorker(std::span<const ProductJob> jobs, ProductKind kind, const ProductRows& rows, ProductScratch& scratch,
                const ResultSink& sink)
      : jobs_(jobs), kind_(kind), rows_(rows), scratch_(scratch), cores_(*scratch.cores_), sink_(sink) {}

  void process(int64_t item) {
    find_rows(item);
    const int64_t chunk = (item - job_->first_item) % job_->num_chunks, units = num_units(*job_, kind_);
    if (rows_.in_integers(job_->matrix->shape)) {
      const bool paired = chunk + job_->num_chunks < units;
      multiply_in_integers({chunk, paired ? chunk + job_->num_chunks : chunk}, paired ? 2 : 1);
    } else {
      const int64_t first = chunk * job_->units_of_item;
      multiply_in_floats(first, std::min(first + job_->units_of_item, units));
    }
  }

 private:
  // Makes the item's job and block of rows the current ones.
  void find_rows(int64_t item) {
    const auto contains = [&](const ProductJob& job) {
      return job.first_item <= item && item < job.first_item + job.num_items();
    };
    const ProductJob* job = job_;
    if (!job || !contains(*job)) {
      job = &*std::upper_bound(jobs_.begin(), jobs_.end(), item, [](int64_t item, const ProductJob& job) {
        return item < job.first_item;
      }) - 1;
    }
    const int64_t first_row = (item - job->first_item) / job->num_chunks * job->rows_of_block;
    if (job == job_ && job->first_row + first_row == first_row_) return;
    job_ = job;
    first_row_ = job->first_row + first_row;
    num_rows_ = std::min(job->rows_of_block, job->num_rows - first_row);
    if (rows_.in_integers(job->matrix->shape)) {
      prepare_int_rows();
    } else {
      prepare_float_rows();
    }
  }

  int64_t input_row(int64_t idx) const { return rows_.row_ids ? rows_.row_ids[first_row_ + idx] : first_row_ + idx; }

  void prepare_int_rows() {
    const MatrixShape& shape = job_->matrix->shape;
    const int64_t num_groups = ceil_div(shape.in_features, shape.block_inputs);
    for (int64_t idx = 0; idx < num_rows_; idx++) {
      if (rows_.quantize) {
        int8_t* values = scratch_.quantized_values_ + idx * shape.in_features;
        float* scales = scratch_.quantized_scales_ + idx * num_groups;
        cores_.quantize(rows_.input.values.row(input_row(idx)), shape.in_features, shape.block_inputs, values, scales);
        scratch_.int_rows_[idx] = values;
        scratch_.int_scales_[idx] = scales;
      } else {
        scratch_.int_rows_[idx] = rows_.input.quantized.values.row(input_row(idx));
        scratch_.int_scales_[idx] = rows_.input.quantized.scales.row(input_row(idx));
      }
    }
    cores_.int_core->prepare(shape,
                             {.values = scratch_.int_rows_, .scales = scratch_.int_scales_, .num_rows = num_rows_},
                             scratch_.prepared_);
  }

  void prepare_float_rows() {
    const int64_t in_features = job_->matrix->shape.in_features;
    auto* expanded = reinterpret_cast<float*>(scratch_.prepared_);
    for (int64_t idx = 0; idx < num_rows_; idx++, expanded += in_features) {
      if (!rows_.input.values.empty()) {
        scratch_.float_rows_[idx] = rows_.input.values.row(input_row(idx));
      } else {
        expand(input_row(idx), in_features, expanded);
        scratch_.float_rows_[idx] = expanded;
      }
    }
  }

  void expand(int64_t row, int64_t in_features, float* out) const {
    const QuantizedRows& quantized = rows_.input.quantized;
    const int8_t* values = quantized.values.row(row);
    const float* scales = quantized.scales.row(row);
    for (int64_t begin = 0; begin < in_features; begin += quantized.group, scales++) {
      const int64_t end = std::min(begin + quantized.group, in_features);
      for (int64_t in = begin; in < end; in++) out[in] = static_cast<float>(values[in]) * *scales;
    }
  }

  float* tile(int idx) const { return scratch_.tiles_ + idx * kIntTileRows * kTileWidth; }

  void multiply_in_integers(const int64_t (&units)[2], int count) {
    const PackedMatrix& matrix = *job_->matrix;
    const int step = strips_of_unit(kind_);
    for (int part = 0; part < step; part++) {  // gate, then up
      IntCoreArgs args{.shape = matrix.shape, .prepared = scratch_.prepared_, .num_rows = num_rows_, .out = tile(part)};
      if (part + 1 == step) args.targets = targets(units);
      for (int idx = 0; idx < 2; idx++)
        args.strips[idx] = matrix.data + static_cast<size_t>(units[idx] * step + part) * matrix.shape.strip_bytes();
      cores_.int_core->multiply(args);
    }
    for (int idx = 0; idx < count; idx++)
      finish(units[idx], tile(0) + idx * kStrip, tile(1) + idx * kStrip, kTileWidth);
  }

  ResultTargets targets(const int64_t (&units)[2]) const {
    ResultTargets targets{.row_bytes = sink_.row_bytes};
    if (sink_.row_ids) targets.row_ids = sink_.row_ids + first_row_;
    const int64_t first_row = sink_.row_ids ? 0 : first_row_;
    for (int idx = 0; idx < 2 && sink_.target; idx++)
      targets.strips[idx] = sink_.target + first_row * sink_.row_bytes + units[idx] * kStrip * sink_.output_bytes;
    return targets;
  }

  void multiply_in_floats(int64_t begin, int64_t end) {
    const int step = strips_of_unit(kind_);
    cores_.float_core({.matrix = *job_->matrix,
                       .strip_begin = begin * step,
                       .strip_end = end * step,
                       .rows = scratch_.float_rows_,
                       .num_rows = num_rows_,
                       .out = scratch_.tiles_,
                       .out_stride = kFloatTileWidth});
    for (int64_t unit = begin; unit < end; unit++) {
      float* result = scratch_.tiles_ + (unit - begin) * step * kStrip;
      finish(unit, result, result + kStrip, kFloatTileWidth);
    }
  }

  void finish(int64_t unit, float* result, const float* up, int64_t stride) {
    if (kind_ == ProductKind::kGated) cores_.silu_product(result, up, stride, num_rows_);
    sink_.store({.first_row = first_row_,
                 .num_rows = num_rows_,
                 .first_output = unit * kStrip,
                 .values = result,
                 .stride = stride});
  }

  std::span<const ProductJob> jobs_;
  ProductKind kind_;
  const ProductRows& rows_;
  ProductScratch& scratch_;
  const LinearCores& cores_;
  const ResultSink& sink_;

  const ProductJob* job_ = nullptr;
  int64_t first_row_ = 0, num_rows_ = 0;  // of the products' rows: what is prepared
};

void run_products(std::span<const ProductJob> jobs, ProductKind kind, const ProductRows& rows, WorkRanges& ranges,
                  int thread_idx, ProductScratch& scratch, const ResultSink& sink) {
  ProductWorker worker(jobs, kind, rows, scratch, sink);
  for (int64_t item; (item = ranges.next(thread_idx)) >= 0;) worker.process(item);
}

}  // namespace cachalot
