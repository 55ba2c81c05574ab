#include "model/weight_packer.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "base/math.h"
#include "weights/linear_source.h"

namespace cachalot {
namespace {

constexpr size_t kAlignment = 64;
constexpr int kFloatActivationGroup = 64;  // of int8 rows that meet float weights

}  // namespace

std::string_view weight_kind_name(WeightKind kind) {
  static constexpr std::array<std::string_view, kNumWeightKinds> kNames{
      "embedding",    "head",   "attention",      "kv_b",    "kv_b, absorbed form",
      "dense layers", "router", "shared experts", "experts", "norms and biases"};
  return kNames[static_cast<size_t>(kind)];
}

std::byte* WeightPacker::take(WeightKind kind, size_t bytes) {
  const size_t begin = round_up(used_, kAlignment);
  bytes_by_kind_[static_cast<size_t>(kind)] += begin + bytes - used_;
  used_ = begin + bytes;
  if (planning()) return nullptr;
  CHECK(used_ <= static_cast<size_t>(memory_.extent(0)), "weights need more than the {} bytes planned",
        memory_.extent(0));
  return memory_.data() + begin;
}

void WeightPacker::report() {
  if (progress_) progress_(used_, static_cast<size_t>(memory_.extent(0)));
}

View<const float, 1> WeightPacker::vector(const std::vector<float>& values) {
  std::byte* data = take(WeightKind::kVectors, values.size() * sizeof(float));  // host: once, at load
  if (data) std::memcpy(data, values.data(), values.size() * sizeof(float));    // host: once, at load
  return View<const float, 1>(reinterpret_cast<const float*>(data), values.size());
}

std::optional<WeightPacker::NotFinite> WeightPacker::take_not_finite() {
  return std::exchange(shared_->not_finite, std::nullopt);
}

void WeightPacker::note_not_finite(NotFinite found) {
  const std::lock_guard lock(shared_->mutex);
  if (!shared_->not_finite || found < *shared_->not_finite) shared_->not_finite = found;
}

// A strip of the window's outputs, which packing reads next, so that it comes from memory once.
void WeightPacker::check_strip(const WeightSource& source, int source_idx, int64_t strip) {
  if (source.format == SourceFormat::kAwq) return;  // whole numbers; their scales are checked with the file
  const size_t element_bytes = dtype_size(source.dtype);
  const int64_t end = std::min((strip + 1) * kStrip, source.out_count);
  for (int64_t row = strip * kStrip; row < end; row++) {
    const size_t first = static_cast<size_t>((source.out_begin + row) * source.in_features + source.in_begin);
    const std::span<const std::byte> data(static_cast<const std::byte*>(source.data) + first * element_bytes,
                                          static_cast<size_t>(source.in_count) * element_bytes);
    if (const auto index = first_not_finite(data, source.dtype)) return note_not_finite({source_idx, first + *index});
  }
}

const void* WeightPacker::table(WeightKind kind, DType dtype, std::span<const std::byte> table, size_t table_begin,
                                size_t size) {
  std::byte* data = take(kind, size);
  if (!data) return nullptr;
  constexpr int64_t kChunk = int64_t{1} << 20;
  const std::byte* const source = table.data() + table_begin;
  device_->threads().parallel_for(static_cast<int64_t>(size), kChunk, [&](int64_t begin, int64_t end, int) {
    const std::span<const std::byte> part(source + begin, static_cast<size_t>(end - begin));
    if (const auto index = first_not_finite(part, dtype))
      note_not_finite({0, (table_begin + static_cast<size_t>(begin)) / dtype_size(dtype) + *index});
    std::memcpy(data + begin, part.data(), part.size());  // host: once, at load
  });
  report();
  return data;
}

// int4 weights want int8 rows unless told otherwise; every other weight only if told so.
Linear WeightPacker::with_input(const MatrixShape& shape, const std::byte* data) const {
  const bool integer = shape.format == MatrixFormat::kI4 || shape.format == MatrixFormat::kI8;
  const bool int8 = !settings_.float32() &&
                    (settings_.activation_dtype == ActivationDTypeOption::kInt8 ||
                     (settings_.activation_dtype == ActivationDTypeOption::kAuto && shape.format == MatrixFormat::kI4));
  return {.matrix = {shape, data}, .input_group = !int8 ? 0 : integer ? shape.block_inputs : kFloatActivationGroup};
}

Linear WeightPacker::linear(WeightKind kind, const WeightSource& source) {
  const MatrixShape shape = plan_matrix(source, settings_.matrix_policy());
  std::byte* data = take(kind, shape.bytes());
  if (data) {
    device_->threads().parallel_for(shape.num_strips(), kPackedStrips, [&](int64_t begin, int64_t end, int) {
      for (int64_t strip = begin; strip < end; strip++) check_strip(source, 0, strip);
      pack_matrix(source, shape, begin, end, data);
    });
    report();
  }
  return with_input(shape, data);
}

Linear WeightPacker::gate_up(WeightKind kind, const WeightSource& gate, const WeightSource& up) {
  const MatrixShape shape = plan_gate_up(gate, up, settings_.matrix_policy());
  std::byte* data = take(kind, shape.bytes());
  if (data) {
    device_->threads().parallel_for(shape.num_strips(), 2 * kPackedStrips, [&](int64_t begin, int64_t end, int) {
      for (int64_t strip = begin; strip < end; strip++)
        check_strip(strip % 2 == 0 ? gate : up, static_cast<int>(strip % 2), strip / 2);
      pack_gate_up(gate, up, shape, begin, end, data);
    });
    report();
  }
  return with_input(shape, data);
}

PackedMatrix WeightPacker::derived(WeightKind kind, int64_t out_features, int64_t in_features,
                                   const std::function<void(int64_t, float*)>& fill) {
  WeightSource source{.format = SourceFormat::kPlain,
                      .dtype = settings_.compute_dtype,
                      .out_features = out_features,
                      .in_features = in_features};
  source = whole(source);
  const MatrixShape shape = plan_matrix(source, settings_.matrix_policy());
  std::byte* data = take(kind, shape.bytes());
  if (!data) return {shape, nullptr};
  derived_values_.resize(static_cast<size_t>(out_features * in_features));
  derived_rounded_.resize(derived_values_.size());
  device_->threads().parallel_for(out_features, 8, [&](int64_t begin, int64_t end, int) {
    for (int64_t out = begin; out < end; out++) {
      float* row = derived_values_.data() + out * in_features;
      fill(out, row);
      for (int64_t in = 0; in < in_features; in++)
        derived_rounded_[static_cast<size_t>(out * in_features + in)] = bf16(row[in]);
    }
  });
  source.data = settings_.float32() ? static_cast<const void*>(derived_values_.data()) : derived_rounded_.data();
  device_->threads().parallel_for(shape.num_strips(), kPackedStrips, [&](int64_t begin, int64_t end, int) {
    pack_matrix(source, shape, begin, end, data);
  });
  report();
  return {shape, data};
}

}  // namespace cachalot
