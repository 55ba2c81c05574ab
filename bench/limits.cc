#include "bench/limits.h"

#include <immintrin.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>

#include "device/device.h"

namespace cachalot::bench {
namespace {

constexpr size_t kBytes = size_t{1} << 30;
constexpr int64_t kIterations = 3'000'000;
constexpr int kChains = 12;  // independent sums: hides the latency on every machine

std::atomic<float> sink;  // keeps results alive

double seconds_of(FunctionRef<void()> body) {
  const auto begin = std::chrono::steady_clock::now();
  body();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

[[gnu::target("avx2")]] void read(const std::byte* data, size_t size) {
  __m256i sums[4] = {};
  const size_t half = size / 2;  // two streams a thread
  for (size_t at = 0; at < half; at += 64)
    for (int part = 0; part < 4; part++) {
      const std::byte* line = data + (part / 2) * half + at;
      if (part % 2 == 0) _mm_prefetch(line + 4096, _MM_HINT_T0);
      sums[part] = _mm256_add_epi64(sums[part], _mm256_load_si256(reinterpret_cast<const __m256i*>(line) + part % 2));
    }
  const __m256i sum = _mm256_add_epi64(_mm256_add_epi64(sums[0], sums[1]), _mm256_add_epi64(sums[2], sums[3]));
  sink = static_cast<float>(_mm256_extract_epi64(sum, 0));
}

[[gnu::target("avx2,fma")]] void multiply_avx2() {
  __m256 sums[kChains] = {}, factor = _mm256_set1_ps(sink);
  for (int64_t iteration = 0; iteration < kIterations; iteration++) {
    asm volatile("" : "+x"(factor));
#pragma GCC unroll 12
    for (__m256& sum : sums) sum = _mm256_fmadd_ps(factor, factor, sum);
  }
  for (const __m256& sum : sums) sink = sink + sum[0];
}

[[gnu::target("avx512f")]] void multiply_avx512() {
  __m512 sums[kChains] = {}, factor = _mm512_set1_ps(sink);
  for (int64_t iteration = 0; iteration < kIterations; iteration++) {
    asm volatile("" : "+v"(factor));
#pragma GCC unroll 12
    for (__m512& sum : sums) sum = _mm512_fmadd_ps(factor, factor, sum);
  }
  for (const __m512& sum : sums) sink = sink + sum[0];
}

}  // namespace

double read_bandwidth(ThreadPool& threads) {
  static const Buffer buffer = [] {
    Buffer memory = *Device::allocate(kBytes);
    std::memset(memory.data(), 1, kBytes);
    return memory;
  }();
  const size_t share = kBytes / static_cast<size_t>(threads.num_threads()) / 4096 * 4096;
  return static_cast<double>(share) * threads.num_threads() / seconds_of([&] {
           threads.run([&](int thread_idx) { read(buffer.data() + static_cast<size_t>(thread_idx) * share, share); });
         });
}

double fma_peak(ThreadPool& threads, IsaLevel isa) {
  const double operations = 2.0 * kChains * kIterations * (isa == IsaLevel::kAvx512 ? 16 : 8) * threads.num_threads();
  return operations /
         seconds_of([&] { threads.run([&](int) { isa == IsaLevel::kAvx512 ? multiply_avx512() : multiply_avx2(); }); });
}

}  // namespace cachalot::bench
