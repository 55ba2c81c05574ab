#include "processes/header_weights.h"

#include <algorithm>
#include <filesystem>
#include <optional>

#include "base/error.h"
#include "base/math.h"
#include "base/text.h"
#include "config/model_config.h"
#include "placement/expert_placement.h"
#include "weights/safetensors.h"

namespace cachalot::test {
namespace {

enum class Packing { kFloat32, kBfloat16, kFp8, kInt4 };

struct Matrix {
  Packing packing;
  int64_t out, in;
};

// Outputs come in strips of 16, inputs in blocks.
uint64_t packed_bytes(const Matrix& matrix) {
  const auto strips = static_cast<uint64_t>(round_up(matrix.out, 16) / 16);
  switch (matrix.packing) {
    case Packing::kFloat32:
      return strips * 16 * 4 * static_cast<uint64_t>(matrix.in);
    case Packing::kBfloat16:
      return strips * 16 * 2 * static_cast<uint64_t>(matrix.in);
    case Packing::kFp8:
      return strips * 2112 * static_cast<uint64_t>(round_up(matrix.in, 128) / 128);
    case Packing::kInt4:
      return strips * 552 * static_cast<uint64_t>(round_up(matrix.in, 64) / 64);
  }
  return 0;
}

// Nothing for the scales and zero points that belong to a matrix, and for vectors.
std::optional<Matrix> matrix_of(const TensorSpec& spec) {
  if (spec.name.ends_with(".qweight")) return Matrix{Packing::kInt4, spec.shape[1] * 8, spec.shape[0]};
  if (!spec.name.ends_with(".weight") || spec.shape.size() != 2) return std::nullopt;
  return Matrix{spec.dtype == DType::kF8E4M3 ? Packing::kFp8 : Packing::kBfloat16, spec.shape[0], spec.shape[1]};
}

class Shares {
 public:
  Shares(const ModelConfig& config, const Layout& layout, int rank)
      : config_(config), layout_(layout), rank_(rank), placement_(even_placement(config, layout.num_ranks())) {}

  uint64_t of(const TensorSpec& spec) const {
    if (spec.shape.size() == 1) return static_cast<uint64_t>(spec.shape[0]) * sizeof(float);  // norms, biases
    const std::optional<Matrix> matrix = matrix_of(spec);
    return matrix ? of(spec.name, *matrix) : 0;
  }

 private:
  uint64_t of(const std::string& name, Matrix matrix) const {
    const auto is = [&](std::string_view part) { return name.find(part) != std::string::npos; };
    if (is(".kv_b_proj.")) return of_kv_b(matrix);
    int parts = layout_.tp_size;
    if (is(".experts.")) {
      if (layout_.expert_parallel && !holds(name)) return 0;
      if (layout_.expert_parallel) parts = 1;
    } else if (is(".shared_experts.")) {
      if (layout_.expert_parallel) parts = 1;
    } else if (is(".q_a_proj.") || is(".kv_a_proj_with_mqa.") || is(".mlp.gate.")) {
      parts = 1;
    }
    (is(".o_proj.") || is(".down_proj.") ? matrix.in : matrix.out) /= parts;
    return packed_bytes(matrix);
  }

  // Once as stored, and once for the absorbed form: values as stored, keys transposed in the compute dtype.
  uint64_t of_kv_b(Matrix matrix) const {
    const int64_t num_heads = config_.num_heads / layout_.tp_size;
    matrix.out /= layout_.tp_size;
    const Matrix values{matrix.packing, config_.v_head_dim, matrix.in},
        keys{Packing::kFloat32, config_.kv_lora_rank, config_.qk_nope_head_dim};
    return packed_bytes(matrix) + static_cast<uint64_t>(num_heads) * (packed_bytes(values) + packed_bytes(keys));
  }

  // "model.layers.1.mlp.experts.17.up_proj.weight"
  bool holds(const std::string& name) const {
    const auto number_after = [&](std::string_view before) {
      return leading_number<int>(std::string_view(name).substr(name.find(before) + before.size()));
    };
    int moe_layer = 0;
    for (int layer = 0; layer < number_after("layers."); layer++) moe_layer += config_.is_moe_layer(layer);
    const std::span<const int32_t> slots = placement_->slots(moe_layer, rank_);
    return std::ranges::find(slots, number_after(".experts.")) != slots.end();
  }

  const ModelConfig& config_;
  const Layout layout_;
  const int rank_;
  const SharedPlacement placement_;
};

}  // namespace

uint64_t weight_bytes_by_headers(const std::string& model_folder, const Layout& layout, int rank) {
  const auto config = load_model_config(model_folder);
  CHECK(config, "{}", config.error().message);
  const Shares shares(*config, layout, rank);
  uint64_t bytes = 0;
  for (const auto& entry : std::filesystem::directory_iterator(model_folder)) {
    const std::string path = entry.path();
    if (!path.ends_with(".safetensors") || path.ends_with("cases.safetensors")) continue;
    const auto file = SafetensorsFile::open(path);
    CHECK(file, "{}", file.error().message);
    for (const TensorRef& tensor : file->tensors()) bytes += shares.of(tensor.spec);
  }
  return bytes;
}

}  // namespace cachalot::test
