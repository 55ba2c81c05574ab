#pragma once

#include "device/thread_pool.h"
#include "kernels/isa.h"

namespace cachalot::bench {

// What this machine gives right now, with all threads of the pool: figures stand beside these, since hosts drift.
double read_bandwidth(ThreadPool& threads);          // bytes a second, over memory that no cache holds
double fma_peak(ThreadPool& threads, IsaLevel isa);  // fp32 operations a second, two a fma

}  // namespace cachalot::bench
