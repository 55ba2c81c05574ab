#pragma once

#include "base/error.h"
#include "config/model_config.h"
#include "device/device.h"
#include "kernels/ops.h"

namespace cachalot {

// Rotary tables with YaRN (Peng et al., 2023) as DeepSeek applies it: frequencies are interpolated between the bands of
// beta_fast and beta_slow, and cos and sin carry mscale(factor, mscale) / mscale(factor, mscale_all_dim).
class Rope {
 public:
  static Result<Rope> create(const ModelConfig& config, int64_t max_positions);
  static size_t table_bytes(const ModelConfig& config, int64_t max_positions);
  // Of some thousand rows of the table and the softmax's scale: ranks that compute together have the same one.
  static uint64_t hash(const ModelConfig& config, int64_t max_positions);

  const RopeTable& table() const { return table_; }
  // 1/sqrt(qk_head_dim), times YaRN's mscale(factor, mscale_all_dim) squared.
  static float softmax_scale(const ModelConfig& config);

 private:
  Buffer buffer_;
  RopeTable table_;
};

}  // namespace cachalot
