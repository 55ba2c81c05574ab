#include "kernels/cpu/limits.h"

#include <chrono>
#include <cstring>

#include "base/error.h"
#include "kernels/cores.h"

namespace cachalot {
namespace {

constexpr size_t kPiece = size_t{1} << 20;  // of each of two streams that a thread reads at a time
constexpr int64_t kPeakPieces = 64;         // a thread
constexpr int64_t kPeakRounds = 65536;      // a piece

template <class Work>
double seconds(Work work) {
  const auto begin = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

}  // namespace

Result<Limits> Limits::create(IsaLevel isa, Device& device, size_t memory_bytes) {
  ASSIGN_OR_RETURN(Buffer memory, device.allocate(memory_bytes));
  device.threads().parallel_for(static_cast<int64_t>(memory.size() / kPiece), 1, [&](int64_t begin, int64_t end, int) {
    std::memset(memory.data() + static_cast<size_t>(begin) * kPiece, 1, static_cast<size_t>(end - begin) * kPiece);
  });
  return Limits(*level_cores(isa).limits, device, std::move(memory));
}

double Limits::read_bandwidth() {
  const auto pieces = static_cast<int64_t>(memory_.size() / kPiece / 2);
  const double time = seconds([&] {
    threads_->parallel_for(pieces, 1, [&](int64_t begin, int64_t end, int) {
      for (int64_t piece = begin; piece < end; piece++) {
        const std::byte* first = memory_.data() + static_cast<size_t>(piece) * kPiece;
        cores_->read(first, first + memory_.size() / 2, kPiece);
      }
    });
  });
  return static_cast<double>(memory_.size()) / time;
}

double Limits::peak(void (*multiply)(int64_t), int64_t operations_of_round) {
  const int64_t pieces = kPeakPieces * threads_->num_threads();
  const double time = seconds([&] {
    threads_->parallel_for(pieces, 1, [&](int64_t begin, int64_t end, int) { multiply(kPeakRounds * (end - begin)); });
  });
  return static_cast<double>(kPeakRounds * operations_of_round * pieces) / time;
}

double Limits::int8_peak() {
  return peak(cores_->multiply_int8, cores_->int8_operations);
}
double Limits::float_peak() {
  return peak(cores_->multiply_floats, cores_->float_operations);
}

}  // namespace cachalot
