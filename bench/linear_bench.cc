// Speed of linears and experts as a fraction of what the machine allows at that moment:
//
//   fraction = max(weight bytes / bandwidth, int8 operations / peak) / time
//
// with both limits measured before and after each pass. Quantizing the rows is part of the time. Weights come from
// memory: a pass goes over many matrices, far more than caches hold.
//
// linear_bench [--threads=2] [--isa=avx512] [Google Benchmark's flags]
#include <benchmark/benchmark.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "base/math.h"
#include "kernels/cpu/limits.h"
#include "kernels/ops.h"

namespace cachalot {
namespace {

constexpr size_t kWeightBytes = size_t{1} << 30;
constexpr int64_t kMostRows = 512, kMostWidth = 11264, kGroup = 64;
constexpr double kPassBytes = 3e8, kPassOperations = 4e11;  // a pass ends at either

struct Options {
  int num_threads = 2;
  IsaLevel isa = detect_isa();
};

// Random int4 blocks, from which matrices of any shape are cut.
class WeightPool {
 public:
  WeightPool() : memory_(Device::allocate(kWeightBytes).value()) {
    std::mt19937_64 random(1);
    auto* words = reinterpret_cast<uint64_t*>(memory_.data());
    for (size_t idx = 0; idx < kWeightBytes / sizeof(uint64_t); idx++) words[idx] = random();
    const MatrixShape shape = int4_shape(kStrip, kGroup);
    for (size_t block = 0; block + shape.block_bytes() <= kWeightBytes; block += shape.block_bytes()) {
      for (size_t idx = 0; idx < kStrip; idx++) {
        const auto scale = static_cast<uint16_t>(0x1c00 | (random() & 0x83ff));  // some thousandths, of either sign
        std::memcpy(memory_.data() + block + shape.scales_offset() + 2 * idx, &scale, sizeof(scale));
      }
    }
  }
  static MatrixShape int4_shape(int64_t out_features, int64_t in_features) {
    return {.format = MatrixFormat::kI4,
            .out_features = out_features,
            .in_features = in_features,
            .block_inputs = kGroup,
            .first_block_inputs = kGroup};
  }
  void rewind() { used_ = 0; }
  bool has(const MatrixShape& shape) const { return used_ + shape.bytes() <= kWeightBytes; }
  PackedMatrix take(const MatrixShape& shape) {
    const PackedMatrix matrix{shape, memory_.data() + used_};
    used_ += shape.bytes();
    return matrix;
  }

 private:
  Buffer memory_;
  size_t used_ = 0;
};

// What all cases share.
class Bench {
 public:
  explicit Bench(const Options& options)
      : device_({.num_threads = options.num_threads, .cores = cores(options.num_threads)}),
        limits_(Limits::create(options.isa, device_).value()),
        ops_(Ops::create(options.isa, device_,
                         {.max_rows = kMostRows,
                          .max_pairs = kMostRows * 8,
                          .max_in_features = kMostWidth,
                          .max_width = kMostWidth})
                 .value()),
        rows_(kMostRows * kMostWidth),
        int8_(rows_.size()),
        scales_(rows_.size() / kGroup),
        out_(kMostRows * 8 * 7168 * 2) {
    std::mt19937 random(2);
    std::normal_distribution<float> normal;
    for (float& value : rows_) value = normal(random);
  }

  const Ops& ops() const { return ops_; }
  WeightPool& weights() { return weights_; }
  View<float, 2> rows(int64_t num_rows, int64_t features) { return View<float, 2>(rows_.data(), num_rows, features); }
  QuantizedRows int8_rows(int64_t num_rows, int64_t features) {
    return {View<int8_t, 2>(int8_.data(), num_rows, features),
            View<float, 2>(scales_.data(), num_rows, features / kGroup), kGroup};
  }
  View<float, 2> out(int64_t num_rows, int64_t features) { return View<float, 2>(out_.data(), num_rows, features); }
  ComputeView<2> compute_out(int64_t num_rows, int64_t features) {
    return ComputeView<2>(View<bf16, 2>(reinterpret_cast<bf16*>(out_.data()), num_rows, features));
  }

  // Times `pass`, which reads `bytes` and computes `operations`, with the limits around it.
  void measure(benchmark::State& state, double bytes, double operations, const std::function<void()>& pass) {
    std::vector<double> fractions, bandwidths, peaks;
    pass();
    double bandwidth = limits_.read_bandwidth(), peak = limits_.int8_peak();
    for (auto _ : state) {
      const auto begin = std::chrono::steady_clock::now();
      pass();
      const double time = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
      state.SetIterationTime(time);
      const double next_bandwidth = limits_.read_bandwidth(), next_peak = limits_.int8_peak();
      bandwidths.push_back((bandwidth + next_bandwidth) / 2);
      peaks.push_back((peak + next_peak) / 2);
      fractions.push_back(std::max(bytes / bandwidths.back(), operations / peaks.back()) / time);
      bandwidth = next_bandwidth, peak = next_peak;
    }
    state.counters["fraction"] = median(fractions);
    state.counters["lowest"] = *std::min_element(fractions.begin(), fractions.end());
    state.counters["highest"] = *std::max_element(fractions.begin(), fractions.end());
    state.counters["limit_GB/s"] = median(bandwidths) / 1e9;
    state.counters["limit_Tops"] = median(peaks) / 1e12;
    state.counters["GB/s"] = benchmark::Counter(bytes / 1e9, benchmark::Counter::kIsIterationInvariantRate);
    state.counters["Tops"] = benchmark::Counter(operations / 1e12, benchmark::Counter::kIsIterationInvariantRate);
  }

 private:
  static std::vector<int> cores(int num_threads) {
    std::vector<int> cores;
    for (int core = 0; core < num_threads; core++) cores.push_back(core);
    return cores;
  }

  Device device_;
  Limits limits_;
  Ops ops_;
  WeightPool weights_;
  std::vector<float> rows_;
  std::vector<int8_t> int8_;
  std::vector<float> scales_;
  std::vector<float> out_;
};

// One linear after another on the same rows, as in the dense layers.
void bench_linear(benchmark::State& state, Bench& bench, int64_t num_rows, int64_t out_features, int64_t in_features) {
  const MatrixShape shape = WeightPool::int4_shape(out_features, in_features);
  bench.weights().rewind();
  std::vector<PackedMatrix> matrices;
  double bytes = 0, operations = 0;
  while (bench.weights().has(shape) && bytes < kPassBytes && operations < kPassOperations) {
    matrices.push_back(bench.weights().take(shape));
    bytes += static_cast<double>(shape.bytes());
    operations += 2. * static_cast<double>(num_rows * out_features * in_features);
  }
  const QuantizedRows int8 = bench.int8_rows(num_rows, in_features);
  bench.measure(state, bytes, operations, [&] {
    for (const PackedMatrix& matrix : matrices) {
      bench.ops().quantize(bench.rows(num_rows, in_features), int8);
      bench.ops().linear({.values = {}, .quantized = int8}, matrix, bench.out(num_rows, out_features));
    }
  });
}

// The active experts of one layer after another, each with the same number of rows.
void bench_experts(benchmark::State& state, Bench& bench, int64_t num_experts, int64_t rows_of_expert, int64_t hidden,
                   int64_t width) {
  struct Layer {
    std::vector<PackedMatrix> gate_up, down;
  };
  const MatrixShape gate_up = WeightPool::int4_shape(2 * width, hidden), down = WeightPool::int4_shape(hidden, width);
  const double layer_bytes = static_cast<double>(num_experts) * static_cast<double>(gate_up.bytes() + down.bytes());
  const double layer_operations = 2. * static_cast<double>(num_experts * rows_of_expert * 3 * width * hidden);
  bench.weights().rewind();
  std::vector<Layer> layers;
  while (static_cast<double>(layers.size() + 1) * layer_bytes < static_cast<double>(kWeightBytes) &&
         static_cast<double>(layers.size()) * layer_bytes < kPassBytes &&
         static_cast<double>(layers.size()) * layer_operations < kPassOperations) {
    Layer& layer = layers.emplace_back();
    for (int64_t expert = 0; expert < num_experts; expert++) {
      layer.gate_up.push_back(bench.weights().take(gate_up));
      layer.down.push_back(bench.weights().take(down));
    }
  }
  const int64_t num_pairs = num_experts * rows_of_expert, num_rows = std::max<int64_t>(num_pairs / 8, 1);
  std::vector<int32_t> offsets, pair_rows, out_rows;
  for (int64_t expert = 0; expert <= num_experts; expert++)
    offsets.push_back(static_cast<int32_t>(expert * rows_of_expert));
  for (int64_t pair = 0; pair < num_pairs; pair++) {  // results lie by row and slot, as the exchange wants them
    const int64_t row = pair % num_rows, slot = pair / num_rows;
    pair_rows.push_back(static_cast<int32_t>(row));
    out_rows.push_back(static_cast<int32_t>(row * (num_pairs / num_rows) + slot));
  }
  const QuantizedRows int8 = bench.int8_rows(num_rows, hidden);
  const auto layers_count = static_cast<double>(layers.size());
  bench.measure(state, layers_count * layer_bytes, layers_count * layer_operations, [&] {
    for (const Layer& layer : layers) {
      bench.ops().quantize(bench.rows(num_rows, hidden), int8);
      bench.ops().experts({.rows = {.values = {}, .quantized = int8},
                           .pair_rows = View<const int32_t, 1>(pair_rows.data(), num_pairs),
                           .out_rows = View<const int32_t, 1>(out_rows.data(), num_pairs),
                           .offsets = offsets,
                           .gate_up = layer.gate_up,
                           .down = layer.down,
                           .width = width,
                           .out = bench.compute_out(num_pairs, hidden)});
    }
  });
}

void register_cases(Bench& bench) {
  const auto add = [](const std::string& name, auto run) {
    benchmark::RegisterBenchmark(name.c_str(), run)->UseManualTime()->Iterations(9)->Unit(benchmark::kMillisecond);
  };
  for (int64_t rows : {1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 128, 512}) {
    for (const auto& [out, in] : {std::pair<int64_t, int64_t>{3072, 2048}, {2048, 2048}, {22528, 2048}, {2048, 11264}})
      add(fmt::format("linear/{}x{}/rows:{}", out, in, rows),
          [&bench, rows, out = out, in = in](benchmark::State& state) { bench_linear(state, bench, rows, out, in); });
  }
  add("experts/lite/batch:1", [&](benchmark::State& state) { bench_experts(state, bench, 6, 1, 2048, 1408); });
  add("experts/r1/batch:1", [&](benchmark::State& state) { bench_experts(state, bench, 8, 1, 7168, 2048); });
  for (int64_t rows : {2, 3, 4, 6, 8, 12, 16, 32, 48}) {
    add(fmt::format("experts/lite/rows:{}", rows),
        [&bench, rows](benchmark::State& state) { bench_experts(state, bench, 64, rows, 2048, 1408); });
    add(fmt::format("experts/r1/rows:{}", rows),
        [&bench, rows](benchmark::State& state) { bench_experts(state, bench, 16, rows, 7168, 2048); });
  }
}

// Takes our own flags out of the command line.
Options parse_options(int& argc, char** argv) {
  Options options;
  int kept = 1;
  for (int idx = 1; idx < argc; idx++) {
    const std::string_view flag = argv[idx];
    if (flag.starts_with("--threads=")) {
      std::from_chars(flag.data() + 10, flag.data() + flag.size(), options.num_threads);
    } else if (flag.starts_with("--isa=")) {
      for (IsaLevel isa : {IsaLevel::kReference, IsaLevel::kAvx2, IsaLevel::kAvx512}) {
        if (flag.substr(6) == isa_name(isa)) options.isa = isa;
      }
    } else {
      argv[kept++] = argv[idx];
    }
  }
  argc = kept;
  return options;
}

}  // namespace
}  // namespace cachalot

int main(int argc, char** argv) {
  const cachalot::Options options = cachalot::parse_options(argc, argv);
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  cachalot::Bench bench(options);
  cachalot::register_cases(bench);
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
