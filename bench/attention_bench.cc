#include <benchmark/benchmark.h>

#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "base/math.h"
#include "device/device.h"
#include "kernels/cpu/limits.h"
#include "kernels/ops.h"

// Attention on real shapes, beside what the machine gives. Operations are the causal ones: two a fma of scores and
// values.
namespace cachalot {
namespace {

constexpr int kBlockSize = 64;

struct Shape {
  const char* name;
  int64_t heads, nope, rope, v, latent;
};
constexpr Shape kLite{"lite", 16, 128, 64, 128, 512}, kR1{"r1", 128, 128, 64, 128, 512},
    kSmall{"small", 8, 48, 24, 40, 64};

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

std::vector<float> random_floats(int64_t count) {
  static std::minstd_rand random(1);
  std::uniform_real_distribution<float> uniform(-1, 1);
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = uniform(random);
  return values;
}

// An indexer's, as DeepSeek V3.2 has it on every rank.
constexpr int64_t kIndexHeads = 64, kIndexDim = 128, kTopk = 2048;

// Sequences of equal length, one after another in a bf16 cache.
class Cache {
 public:
  Cache(int64_t width, int64_t sequences, int64_t positions)
      : width_(width),
        blocks_of_sequence_(ceil_div(positions, kBlockSize)),
        rows_(static_cast<size_t>(sequences * blocks_of_sequence_ * kBlockSize * width_)),
        blocks_(static_cast<size_t>(sequences * blocks_of_sequence_)) {
    std::iota(blocks_.begin(), blocks_.end(), 0);
    std::minstd_rand random(2);
    for (bf16& number : rows_) number = bf16(static_cast<float>(random() % 2000) / 1000.f - 1);
  }
  CachedContext context(int64_t sequence) {
    return {.cache = ComputeView<2>(rows_.data(), DType::kBF16, std::ssize(rows_) / width_, width_),
            .blocks = std::span(blocks_).subspan(static_cast<size_t>(sequence * blocks_of_sequence_),
                                                 static_cast<size_t>(blocks_of_sequence_)),
            .block_size = kBlockSize};
  }

 private:
  int64_t width_, blocks_of_sequence_;
  std::vector<bf16> rows_;
  std::vector<BlockId> blocks_;
};

Ops ops_for(IsaLevel isa, const Shape& shape, int64_t rows, int64_t positions) {
  const OpsLimits limits{.max_rows = rows,
                         .max_heads = shape.heads,
                         .max_head_dim = shape.nope + shape.rope,
                         .max_kv_lora_rank = shape.latent,
                         .max_positions = positions,
                         .max_index_heads = kIndexHeads,
                         .max_index_dim = kIndexDim};
  return Ops::create(isa, device(), limits).value();
}

void report(benchmark::State& state, IsaLevel isa, double bytes, double operations, double bandwidth, double peak) {
  const auto rate = [&](double amount) {
    return benchmark::Counter(amount * static_cast<double>(state.iterations()), benchmark::Counter::kIsRate);
  };
  const double peak_after = limits(isa).float_peak();
  state.counters["B/s"] = rate(bytes);
  state.counters["flop/s"] = rate(operations);
  state.counters["of_limit"] = rate(std::max(bytes / bandwidth, operations / ((peak + peak_after) / 2)));
  state.counters["limit_B/s"] = bandwidth;
  state.counters["limit_flop/s"] = peak;
}

// The last `rows` positions of a prompt of `positions`.
void expanded(benchmark::State& state, IsaLevel isa, const Shape& shape) {
  const int64_t rows = state.range(0), positions = state.range(1);
  Cache cache(shape.latent + shape.rope, 1, positions);
  const std::vector<float> q = random_floats(rows * shape.heads * (shape.nope + shape.rope));
  const std::vector<float> kv = random_floats(positions * shape.heads * (shape.nope + shape.v));
  std::vector<float> out(static_cast<size_t>(rows * shape.heads * shape.v)),
      max(static_cast<size_t>(rows * shape.heads)), sum = max;
  const Ops ops = ops_for(isa, shape, rows, positions);
  const ExpandedAttentionArgs args{.q = View<const float, 3>(q.data(), rows, shape.heads, shape.nope + shape.rope),
                                   .kv = View<const float, 3>(kv.data(), positions, shape.heads, shape.nope + shape.v),
                                   .context = cache.context(0),
                                   .nope_dim = static_cast<int>(shape.nope),
                                   .rope_dim = static_cast<int>(shape.rope),
                                   .first_row_position = static_cast<int>(positions - rows),
                                   .softmax_scale = 0.1f,
                                   .first_chunk = true,
                                   .last_chunk = true,
                                   .out = View<float, 3>(out.data(), rows, shape.heads, shape.v),
                                   .row_max = View<float, 2>(max.data(), rows, shape.heads),
                                   .row_sum = View<float, 2>(sum.data(), rows, shape.heads)};
  const double bandwidth = limits(isa).read_bandwidth(), peak = limits(isa).float_peak();
  for (auto _ : state) ops.attend_expanded(args);
  const double pairs = static_cast<double>(rows * (positions - rows) + rows * (rows + 1) / 2);
  report(state, isa, static_cast<double>(positions * shape.heads * (shape.nope + shape.v) * 4),
         2 * pairs * static_cast<double>(shape.heads * (shape.nope + shape.rope + shape.v)), bandwidth, peak);
}

// `rows` sequences of `positions` each.
void absorbed(benchmark::State& state, IsaLevel isa, const Shape& shape) {
  const int64_t rows = state.range(0), positions = state.range(1);
  Cache cache(shape.latent + shape.rope, rows, positions);
  const std::vector<float> q_latent = random_floats(rows * shape.heads * shape.latent),
                           q_rope = random_floats(rows * shape.heads * shape.rope);
  std::vector<float> out(q_latent.size());
  std::vector<AbsorbedRow> contexts;
  for (int64_t row = 0; row < rows; row++) contexts.push_back({cache.context(row), static_cast<int>(positions - 1)});
  const Ops ops = ops_for(isa, shape, rows, positions);
  const double bandwidth = limits(isa).read_bandwidth(), peak = limits(isa).float_peak();
  for (auto _ : state)
    ops.attend_absorbed({.q_latent = View<const float, 3>(q_latent.data(), rows, shape.heads, shape.latent),
                         .q_rope = View<const float, 3>(q_rope.data(), rows, shape.heads, shape.rope),
                         .rows = contexts,
                         .softmax_scale = 0.1f,
                         .out = View<float, 3>(out.data(), rows, shape.heads, shape.latent)});
  const double pairs = static_cast<double>(rows * positions);
  report(state, isa, pairs * static_cast<double>((shape.latent + shape.rope) * 2),
         2 * pairs * static_cast<double>(shape.heads * (2 * shape.latent + shape.rope)), bandwidth, peak);
}

// The same with an indexer: it scores all positions, and the row attends to the best.
void sparse(benchmark::State& state, IsaLevel isa, const Shape& shape) {
  const int64_t rows = state.range(0), positions = state.range(1);
  Cache latents(shape.latent + shape.rope, rows, positions), keys(kIndexDim, rows, positions);
  const std::vector<float> q_latent = random_floats(rows * shape.heads * shape.latent),
                           q_rope = random_floats(rows * shape.heads * shape.rope),
                           index_q = random_floats(rows * kIndexHeads * kIndexDim),
                           weights = random_floats(rows * kIndexHeads);
  std::vector<float> out(q_latent.size());
  std::vector<int32_t> chosen(static_cast<size_t>(rows * kTopk));
  const auto position = static_cast<int>(positions - 1);
  std::vector<ScoredRow> scored;
  std::vector<AbsorbedRow> attending;
  for (int64_t row = 0; row < rows; row++) {
    scored.push_back({keys.context(row), position});
    attending.push_back({latents.context(row), position, View<const int32_t, 1>(chosen.data() + row * kTopk, kTopk)});
  }
  const Ops ops = ops_for(isa, shape, rows, positions);
  const double bandwidth = limits(isa).read_bandwidth(), peak = limits(isa).float_peak();
  for (auto _ : state) {
    ops.choose_positions({.q = View<const float, 3>(index_q.data(), rows, kIndexHeads, kIndexDim),
                          .head_weights = View<const float, 2>(weights.data(), rows, kIndexHeads),
                          .rows = scored,
                          .chosen = View<int32_t, 2>(chosen.data(), rows, kTopk)});
    ops.attend_absorbed({.q_latent = View<const float, 3>(q_latent.data(), rows, shape.heads, shape.latent),
                         .q_rope = View<const float, 3>(q_rope.data(), rows, shape.heads, shape.rope),
                         .rows = attending,
                         .softmax_scale = 0.1f,
                         .out = View<float, 3>(out.data(), rows, shape.heads, shape.latent)});
  }
  const auto scored_pairs = static_cast<double>(rows * positions), pairs = static_cast<double>(rows * kTopk);
  report(state, isa, scored_pairs * kIndexDim * 2 + pairs * static_cast<double>((shape.latent + shape.rope) * 2),
         2 * scored_pairs * kIndexHeads * kIndexDim +
             2 * pairs * static_cast<double>(shape.heads * (2 * shape.latent + shape.rope)),
         bandwidth, peak);
}

const bool registered = [] {
  for (const IsaLevel isa : {IsaLevel::kAvx512, IsaLevel::kAvx2}) {
    if (detect_isa() < isa) continue;
    for (const Shape& shape : {kLite, kR1, kSmall}) {
      const std::string name = std::string(isa_name(isa)) + "/" + shape.name;
      benchmark::RegisterBenchmark(("expanded/" + name).c_str(),
                                   [=](benchmark::State& state) { expanded(state, isa, shape); })
          ->Args({512, 512})
          ->Args({64, 2048})
          ->Args({16, 512})
          ->UseRealTime()
          ->MinTime(0.1);
      benchmark::RegisterBenchmark(("absorbed/" + name).c_str(),
                                   [=](benchmark::State& state) { absorbed(state, isa, shape); })
          ->Args({1, 128})
          ->Args({1, 4096})
          ->Args({8, 128})
          ->Args({8, 1024})
          ->Args({32, 160})
          ->Args({1, 16384})
          ->Args({1, 65536})
          ->UseRealTime()
          ->MinTime(0.1);
      benchmark::RegisterBenchmark(("sparse/" + name).c_str(),
                                   [=](benchmark::State& state) { sparse(state, isa, shape); })
          ->Args({1, 4096})
          ->Args({1, 16384})
          ->Args({1, 65536})
          ->Args({8, 16384})
          ->UseRealTime()
          ->MinTime(0.1);
    }
  }
  return true;
}();

}  // namespace
}  // namespace cachalot
