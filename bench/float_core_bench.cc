#include <benchmark/benchmark.h>

#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "device/device.h"
#include "kernels/cores.h"
#include "kernels/cpu/limits.h"

// Linears in floats, the weights out of memory: bandwidth for few rows, arithmetic for many, beside what the machine
// gives.
namespace cachalot {
namespace {

constexpr int64_t kIn = 2048, kStrips = 128;
constexpr size_t kWeights = size_t{256} << 20;  // as many matrices as fit, so that no cache holds them

Device& device() {
  static Device device({.num_threads = 2, .cores = {0, 1}});
  return device;
}

Limits& limits(IsaLevel isa) {
  if (isa == IsaLevel::kAvx2) {
    static Limits avx2 = *Limits::create(IsaLevel::kAvx2, device());
    return avx2;
  }
  static Limits avx512 = *Limits::create(IsaLevel::kAvx512, device());
  return avx512;
}

struct Format {
  const char* name;
  MatrixFormat format;
  int block_inputs;
};

void run(benchmark::State& state, IsaLevel isa, const Format& format) {
  const FloatCore core = level_cores(isa).linear->float_core;
  const int64_t num_rows = state.range(0);
  const MatrixShape shape{.format = format.format,
                          .out_features = kStrips * kStrip,
                          .in_features = kIn,
                          .block_inputs = format.block_inputs,
                          .first_block_inputs = format.block_inputs};
  static const Buffer weights = [] {
    Buffer memory = *Device::allocate(kWeights);
    std::memset(memory.data(), 0x21, kWeights);  // harmless numbers in every format
    return memory;
  }();
  const auto num_matrices = static_cast<int64_t>(kWeights / shape.bytes());
  std::vector<float> inputs(static_cast<size_t>(num_rows * kIn), 0.5f),
      out(static_cast<size_t>(num_rows * kStrips * kStrip));
  std::vector<const float*> rows;
  for (int64_t row = 0; row < num_rows; row++) rows.push_back(inputs.data() + row * kIn);
  int64_t matrix_idx = 0;
  const double bandwidth = limits(isa).read_bandwidth(), peak = limits(isa).float_peak();
  for (auto _ : state) {
    const std::byte* data = weights.data() + static_cast<size_t>(matrix_idx) * shape.bytes();
    matrix_idx = (matrix_idx + 1) % num_matrices;
    device().threads().parallel_for(kStrips, 16, [&](int64_t begin, int64_t end, int) {
      core({.matrix = {shape, data},
            .strip_begin = begin,
            .strip_end = end,
            .rows = rows.data(),
            .num_rows = num_rows,
            .out = out.data() + begin * kStrip,
            .out_stride = kStrips * kStrip});
    });
  }
  const double bytes = static_cast<double>(shape.bytes()),
               operations = 2.0 * static_cast<double>(num_rows * kIn * kStrips * kStrip);
  const auto rate = [&](double amount) {
    return benchmark::Counter(amount * static_cast<double>(state.iterations()), benchmark::Counter::kIsRate);
  };
  state.counters["B/s"] = rate(bytes);
  state.counters["flop/s"] = rate(operations);
  state.counters["of_limit"] = rate(std::max(bytes / bandwidth, operations / peak));
  state.counters["limit_B/s"] = bandwidth;
  state.counters["limit_flop/s"] = peak;
}

const bool registered = [] {
  const Format formats[] = {{"f32", MatrixFormat::kF32, 2},   {"bf16", MatrixFormat::kBF16, 2},
                            {"f8", MatrixFormat::kF8, 128},   {"i8", MatrixFormat::kI8, 64},
                            {"i4_64", MatrixFormat::kI4, 64}, {"i4_32", MatrixFormat::kI4, 32}};
  for (const IsaLevel isa : {IsaLevel::kAvx512, IsaLevel::kAvx2})
    for (const Format& format : formats)
      if (detect_isa() >= isa)
        benchmark::RegisterBenchmark((std::string(isa_name(isa)) + "/" + format.name).c_str(),
                                     [=](benchmark::State& state) { run(state, isa, format); })
            ->Arg(1)
            ->Arg(2)
            ->Arg(3)
            ->Arg(4)
            ->Arg(8)
            ->Arg(16)
            ->Arg(64)
            ->Arg(512)
            ->UseRealTime()
            ->MinTime(0.1);
  return true;
}();

}  // namespace
}  // namespace cachalot
