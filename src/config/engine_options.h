#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace cachalot {

enum class DTypeOption { kAuto, kBFloat16, kFloat32 };
enum class ActivationDTypeOption { kAuto, kBf16, kInt8 };
enum class IsaOption { kAuto, kReference, kAvx2, kAvx512 };
enum class SchedulingPolicy { kFcfs, kPriority };

// What one replica's engine is told. Filled from flags (cli/) in one place.
struct EngineOptions {
  std::string model;  // folder
  DTypeOption dtype = DTypeOption::kAuto;
  ActivationDTypeOption activation_dtype = ActivationDTypeOption::kAuto;
  IsaOption isa = IsaOption::kAuto;
  int max_model_len = 0;  // 0: the config's, cut to what the KV memory holds
  int max_num_batched_tokens = 2048;
  int max_num_seqs = 256;
  int block_size = 64;
  int num_scheduler_steps = 1;
  SchedulingPolicy scheduling_policy = SchedulingPolicy::kFcfs;
  bool enable_prefix_caching = true;
  bool prefix_cache_across_roles = false;
  double gpu_memory_utilization = 0.9;
  int num_gpu_blocks_override = 0;  // 0: from memory
  int threads = 0;                  // 0: the rank's share of cores
  std::optional<uint64_t> seed;     // of requests that bring none; absent: a random one each
};

// What a server allows its clients, and what its log says of them.
struct ServiceOptions {
  int max_logprobs = 20;              // alternatives of a token; -1: the whole vocabulary
  int max_num_queued_reqs = 2048;     // requests that wait; 0: no bound
  int64_t max_num_queued_tokens = 0;  // tokens of their prompts; 0: 16 times the longest sequence
  bool log_stats = true;              // rates, every ten seconds in which there were requests
  bool log_requests = false;          // one line for each request
};

}  // namespace cachalot
