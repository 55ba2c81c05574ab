#include "model/weight_packer.h"

#include <cstring>

#include "base/check.h"
#include "base/math.h"

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

const void* WeightPacker::table(WeightKind kind, std::span<const std::byte> table, size_t table_begin, size_t size) {
  std::byte* data = take(kind, size);
  if (!data) return nullptr;
  constexpr int64_t kChunk = int64_t{1} << 20;
  const std::byte* const source = table.data() + table_begin;
  device_->threads().parallel_for(static_cast<int64_t>(size), kChunk, [&](int64_t begin, int64_t end, int) {
    std::memcpy(data + begin, source + begin, static_cast<size_t>(end - begin));  // host: once, at load
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
