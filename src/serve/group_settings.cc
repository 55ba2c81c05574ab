#include "serve/group_settings.h"

#include <fmt/format.h>

namespace cachalot {

std::vector<std::pair<std::string, std::string>> group_settings(const EngineOptions& engine,
                                                                const ParallelOptions& parallel) {
  const auto dtype = [](DTypeOption option) { return option == DTypeOption::kFloat32 ? "float32" : "bfloat16"; };
  const auto activation = [](ActivationDTypeOption option) {
    return option == ActivationDTypeOption::kInt8 ? "int8" : option == ActivationDTypeOption::kBf16 ? "bf16" : "auto";
  };
  const auto text = [](auto value) { return fmt::format("{}", value); };
  return {{"--tensor-parallel-size", text(parallel.tensor_parallel_size)},
          {"--data-parallel-size", text(parallel.data_parallel_size)},
          {"--enable-expert-parallel", parallel.enable_expert_parallel ? "on" : "off"},
          {"--exchange-max-bytes", text(parallel.exchange_max_bytes)},
          {"--failure-timeout-ms", text(parallel.failure_timeout_ms)},
          {"--dtype", dtype(engine.dtype)},
          {"--activation-dtype", activation(engine.activation_dtype)},
          {"--max-model-len", text(engine.max_model_len)},
          {"--max-num-batched-tokens", text(engine.max_num_batched_tokens)},
          {"--max-num-seqs", text(engine.max_num_seqs)},
          {"--block-size", text(engine.block_size)},
          {"--num-scheduler-steps", text(engine.num_scheduler_steps)}};
}

}  // namespace cachalot
