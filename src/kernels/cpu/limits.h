#pragma once

#include <cstddef>
#include <cstdint>

#include "device/device.h"

// What the machine itself allows at this moment, to hold the speed of operations against. Machines that are shared
// drift within minutes: measure before and after what is judged.
namespace cachalot {

struct LimitCores;  // kernels/cores.h

// Limits of all threads of a device together, of a level. Owns memory to read, by default far more than caches hold.
class Limits {
 public:
  // The error: memory that cannot be had.
  static Result<Limits> create(IsaLevel isa, Device& device, size_t memory_bytes = size_t{1} << 30);

  double read_bandwidth();  // bytes a second; some 30 ms
  double int8_peak();       // operations a second; some 10 ms
  double float_peak();

 private:
  Limits(const LimitCores& cores, Device& device, Buffer memory)
      : cores_(&cores), threads_(&device.threads()), memory_(std::move(memory)) {}
  double peak(void (*multiply)(int64_t), int64_t operations_of_round);

  const LimitCores* cores_;
  ThreadPool* threads_;
  Buffer memory_;
};

}  // namespace cachalot
