#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "config/model_config.h"
#include "device/device.h"
#include "kernels/matrix.h"
#include "model/inputs.h"
#include "tensor/view.h"
#include "weights/weight_catalog.h"

// One rank's share of the weights, as views into the memory that the model owns.
namespace cachalot {

// A linear layer and what it wants to be fed: int8 rows of this group, or floats (0).
struct Linear {
  PackedMatrix matrix;
  int input_group = 0;
};

// Whole on every TP rank.
struct IndexerWeights {
  Linear query;  // wq_b: [index heads * index dim, q_lora_rank]
  Linear key;    // wk: [index dim, hidden]
  View<const float, 1> key_norm, key_norm_bias;
  PackedMatrix head_weights;  // weights_proj: [index heads, hidden]
};

struct AttentionWeights {
  View<const float, 1> input_norm;
  Linear q;  // models without q_lora_rank: [heads * qk_head_dim, hidden]
  Linear q_a;
  View<const float, 1> q_a_norm;
  Linear q_b;   // [heads * qk_head_dim, q_lora_rank]
  Linear kv_a;  // [kv_lora_rank + rope, hidden], on every TP rank
  View<const float, 1> kv_a_norm;
  Linear kv_b;                             // [heads * (nope + v), kv_lora_rank]: the expanded form
  std::vector<PackedMatrix> query_absorb;  // a head: [kv_lora_rank, nope], kv_b's keys transposed: the absorbed form
  std::vector<PackedMatrix> value_absorb;  // a head: [v, kv_lora_rank], as stored
  Linear o;                                // [hidden, heads * v]
  std::optional<IndexerWeights> indexer;
};

struct FeedForwardWeights {
  Linear gate_up, down;
  int64_t width = 0;
};

// Why a layer's experts cannot run: rows go to all of them in one form. What the gate_proj and up_proj of two of them
// take (Linear::input_group); `where`: behind each's name, " on rank 0" or nothing.
struct ExpertInput {
  int expert = 0, group = 0;
  std::string where = {};
};
Error experts_differ(int layer, const ExpertInput& one, const ExpertInput& other);

// An expert's, or room for one.
struct ExpertWeights {
  PackedMatrix gate_up, down;
};

struct MoeWeights {
  PackedMatrix router;                      // [num_experts, hidden]
  View<const float, 1> choice_bias;         // [num_experts], or empty
  std::vector<PackedMatrix> gate_up, down;  // this rank's slots
  int input_group = 0;                      // of the experts' gate_up
  int64_t width = 0;
  std::optional<FeedForwardWeights> shared;
};

struct LayerWeights {
  AttentionWeights attention;
  View<const float, 1> post_attention_norm;
  std::optional<FeedForwardWeights> dense;
  std::optional<MoeWeights> moe;
};

struct ModelWeights {
  const void* embedding = nullptr;  // [vocab_count, hidden] as the file holds it
  DType embedding_dtype = DType::kBF16;
  int64_t vocab_begin = 0, vocab_count = 0;  // this rank's slice
  std::vector<LayerWeights> layers;
  View<const float, 1> final_norm;
  Linear head;                              // [vocab_count, hidden]
  std::vector<ExpertWeights> move_buffers;  // each as large as the largest expert
};

// What a weight is for, so that a plan can say what takes the memory.
enum class WeightKind : uint8_t {
  kEmbedding,
  kHead,
  kAttention,    // but kv_b
  kKvB,          // as stored: for the expanded form
  kKvBAbsorbed,  // by head, for the absorbed form
  kIndexer,
  kDense,
  kRouter,
  kSharedExperts,
  kExperts,
  kVectors,  // norms and biases
};
inline constexpr size_t kNumWeightKinds = 11;
std::string_view weight_kind_name(WeightKind kind);
using WeightBytes = std::array<size_t, kNumWeightKinds>;  // by kind; what aligns a weight counts to it

// Packs weights one after another into one buffer. It runs twice over the same calls: planning counts bytes and writes
// nothing, packing writes. Single-threaded outside; the work inside is shared over the device's threads.
class WeightPacker {
 public:
  using Progress = std::function<void(size_t bytes_done, size_t bytes_total)>;

  static WeightPacker planner(const ModelSettings& settings) { return WeightPacker(settings, nullptr, {}, {}); }
  static WeightPacker packer(const ModelSettings& settings, Device& device, View<std::byte, 1> memory,
                             Progress progress) {
    return WeightPacker(settings, &device, memory, std::move(progress));
  }

  bool planning() const { return device_ == nullptr; }
  size_t bytes() const { return used_; }
  const WeightBytes& bytes_by_kind() const { return bytes_by_kind_; }
  // From now on memory is taken, and nothing written there.
  void reserve_only(bool on) { reserves_only_ = on; }

  // A number that is not finite in what the last call has packed: in which of its sources, and its index in the
  // source's whole tensor.
  struct NotFinite {
    int source = 0;  // 1: of gate_up, the second
    size_t index = 0;
    auto operator<=>(const NotFinite&) const = default;
  };
  std::optional<NotFinite> take_not_finite();

  View<const float, 1> vector(const std::vector<float>& values);
  // Bytes [begin, begin + size) of the table of numbers of this type.
  const void* table(WeightKind kind, DType dtype, std::span<const std::byte> table, size_t begin, size_t size);
  Linear linear(WeightKind kind, const WeightSource& source);
  // gate and up as one, see kernels/matrix.h.
  Linear gate_up(WeightKind kind, const WeightSource& gate, const WeightSource& up);
  // A weight that this program derives: values [out_features, in_features], filled by `fill(row, values)` for each
  // output.
  PackedMatrix derived(WeightKind kind, int64_t out_features, int64_t in_features,
                       const std::function<void(int64_t, float*)>& fill);

 private:
  WeightPacker(const ModelSettings& settings, Device* device, View<std::byte, 1> memory, Progress progress)
      : settings_(settings), device_(device), memory_(memory), progress_(std::move(progress)) {}
  std::byte* take(WeightKind kind, size_t bytes);
  template <class Pack>
  Linear packed(WeightKind kind, const MatrixShape& shape, int64_t strips_at_once, Pack pack);
  Linear with_input(const MatrixShape& shape, const std::byte* data) const;
  void report();
  void check_strip(const WeightSource& source, int source_idx, int64_t strip);
  void note_not_finite(NotFinite found);

  ModelSettings settings_;
  Device* device_;
  View<std::byte, 1> memory_;
  Progress progress_;
  size_t used_ = 0;
  bool reserves_only_ = false;
  WeightBytes bytes_by_kind_{};
  struct Shared {  // by the device's threads
    std::mutex mutex;
    std::optional<NotFinite> not_finite;  // the first
  };
  std::unique_ptr<Shared> shared_ = std::make_unique<Shared>();
  std::vector<float> derived_values_;
  std::vector<bf16> derived_rounded_;
};

// Takes this rank's share of every weight, in the order of the forward pass, through `packer` (which may only be
// planning, and then touches no data). Errors name the file and tensor.
Result<ModelWeights> load_weights(const ModelConfig& config, const ModelSettings& settings,
                                  const WeightCatalog& catalog, WeightPacker& packer);

// One layer's alone.
Result<LayerWeights> load_layer(const ModelConfig& config, const ModelSettings& settings, const WeightCatalog& catalog,
                                WeightPacker& packer, int layer);

// One whole expert's alone.
struct LoadedExpert {
  ExpertWeights weights;
  int input_group = 0;
};
Result<LoadedExpert> load_expert(const ModelConfig& config, const ModelSettings& settings, const WeightCatalog& catalog,
                                 WeightPacker& packer, int layer, int32_t expert);

}  // namespace cachalot
