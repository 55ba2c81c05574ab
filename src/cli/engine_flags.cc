#include "cli/engine_flags.h"

#include "cli/choice.h"

namespace cachalot {

void add_isa_flag(CLI::App& app, EngineOptions& options) {
  add_choice(app, "--isa", options.isa,
             {{"auto", IsaOption::kAuto},
              {"reference", IsaOption::kReference},
              {"avx2", IsaOption::kAvx2},
              {"avx512", IsaOption::kAvx512}},
             "Highest instruction set to use: auto, reference, avx2 or avx512");
}

void add_engine_flags(CLI::App& app, EngineOptions& options) {
  app.add_option("--model", options.model, "Folder of the model: config.json, safetensors, tokenizer.json")->required();
  add_choice(app, "--dtype", options.dtype,
             {{"auto", DTypeOption::kAuto}, {"bfloat16", DTypeOption::kBFloat16}, {"float32", DTypeOption::kFloat32}},
             "Compute and KV cache type: auto (bfloat16), bfloat16 or float32 (exact comparison)");
  add_choice(app, "--activation-dtype", options.activation_dtype,
             {{"auto", ActivationDTypeOption::kAuto},
              {"bf16", ActivationDTypeOption::kBf16},
              {"int8", ActivationDTypeOption::kInt8}},
             "What linears are fed: auto (int8 for int4 weights, else fp32), bf16 (never quantized) or int8");
  add_isa_flag(app, options);
  app.add_option("--threads", options.threads, "Compute threads; 0: one a core")
      ->check(CLI::Range(0, 4096))
      ->capture_default_str();
  app.add_option("--max-model-len", options.max_model_len,
                 "Longest sequence, prompt and answer; 0: the model's, cut to what the KV cache holds")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--max-num-batched-tokens", options.max_num_batched_tokens, "Most tokens of a step")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--max-num-seqs", options.max_num_seqs, "Most sequences that run at once")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--block-size", options.block_size, "Tokens of a KV cache block")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  app.add_option("--num-scheduler-steps", options.num_scheduler_steps, "Decode steps of one scheduling decision")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  add_choice(app, "--scheduling-policy", options.scheduling_policy,
             {{"fcfs", SchedulingPolicy::kFcfs}, {"priority", SchedulingPolicy::kPriority}},
             "fcfs, or priority (a lower `priority` of the request is served first, and preempts)");
  add_switch(app, "enable-prefix-caching", options.enable_prefix_caching, "Reuse the KV blocks of equal prefixes (on)");
  app.add_flag("--prefix-cache-across-roles", options.prefix_cache_across_roles,
               "Find an answer again that comes back inside the next prompt, though its bits may differ from a fresh "
               "computation (off)");
  app.add_option("--gpu-memory-utilization", options.gpu_memory_utilization, "Share of the device's memory to use")
      ->check(CLI::Range(0.01, 1.0))
      ->capture_default_str();
  app.add_option("--num-gpu-blocks-override", options.num_gpu_blocks_override, "KV blocks; 0: as memory allows")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--seed", options.seed, "Seed of requests that bring none; absent: a random one each");
}

}  // namespace cachalot
