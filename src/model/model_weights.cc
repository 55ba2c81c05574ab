#include "model/model_weights.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/math.h"
#include "weights/linear_source.h"

namespace cachalot {
namespace {

constexpr size_t kAlignment = 64;
constexpr int kFloatActivationGroup = 64;  // of int8 rows that meet float weights

}  // namespace

std::string_view weight_kind_name(WeightKind kind) {
  static constexpr std::array<std::string_view, kNumWeightKinds> kNames{
      "embedding",    "head",   "attention",      "kv_b",    "kv_b, absorbed form", "indexer",
      "dense layers", "router", "shared experts", "experts", "norms and biases"};
  return kNames[static_cast<size_t>(kind)];
}

std::byte* WeightPacker::take(WeightKind kind, size_t bytes) {
  const size_t begin = round_up(used_, kAlignment);
  bytes_by_kind_[static_cast<size_t>(kind)] += begin + bytes - used_;
  used_ = begin + bytes;
  if (planning()) return nullptr;
  CHECK(used_ <= static_cast<size_t>(memory_.extent(0)), "weights need more than the {} bytes planned",
        memory_.extent(0));
  return memory_.data() + begin;
}

void WeightPacker::report() {
  if (progress_) progress_(used_, static_cast<size_t>(memory_.extent(0)));
}

View<const float, 1> WeightPacker::vector(const std::vector<float>& values) {
  std::byte* data = take(WeightKind::kVectors, values.size() * sizeof(float));  // host: once, at load
  if (data) std::memcpy(data, values.data(), values.size() * sizeof(float));    // host: once, at load
  return View<const float, 1>(reinterpret_cast<const float*>(data), values.size());
}

std::optional<WeightPacker::NotFinite> WeightPacker::take_not_finite() {
  return std::exchange(shared_->not_finite, std::nullopt);
}

void WeightPacker::note_not_finite(NotFinite found) {
  const std::lock_guard lock(shared_->mutex);
  if (!shared_->not_finite || found < *shared_->not_finite) shared_->not_finite = found;
}

// A strip of the window's outputs, which packing reads next, so that it comes from memory once.
void WeightPacker::check_strip(const WeightSource& source, int source_idx, int64_t strip) {
  // Others hold whole numbers; their scales are checked with the file.
  if (source.format != SourceFormat::kPlain && source.format != SourceFormat::kFp8Block) return;
  const size_t element_bytes = dtype_size(source.dtype);
  const int64_t end = std::min((strip + 1) * kStrip, source.out_count);
  for (int64_t row = strip * kStrip; row < end; row++) {
    const size_t first = static_cast<size_t>((source.out_begin + row) * source.in_features + source.in_begin);
    const std::span<const std::byte> data(static_cast<const std::byte*>(source.data) + first * element_bytes,
                                          static_cast<size_t>(source.in_count) * element_bytes);
    if (const auto index = first_not_finite(data, source.dtype)) return note_not_finite({source_idx, first + *index});
  }
}

const void* WeightPacker::table(WeightKind kind, DType dtype, std::span<const std::byte> table, size_t table_begin,
                                size_t size) {
  std::byte* data = take(kind, size);
  if (!data) return nullptr;
  constexpr int64_t kChunk = int64_t{1} << 20;
  const std::byte* const source = table.data() + table_begin;
  device_->threads().parallel_for(static_cast<int64_t>(size), kChunk, [&](int64_t begin, int64_t end, int) {
    const std::span<const std::byte> part(source + begin, static_cast<size_t>(end - begin));
    if (const auto index = first_not_finite(part, dtype))
      note_not_finite({0, (table_begin + static_cast<size_t>(begin)) / dtype_size(dtype) + *index});
    std::memcpy(data + begin, part.data(), part.size());  // host: once, at load
  });
  report();
  return data;
}

// Weights of four bits want int8 rows unless told otherwise; every other weight only if told so.
Linear WeightPacker::with_input(const MatrixShape& shape, const std::byte* data) const {
  const bool int8 =
      !settings_.float32() && (settings_.activation_dtype == ActivationDTypeOption::kInt8 ||
                               (settings_.activation_dtype == ActivationDTypeOption::kAuto && shape.has_four_bits()));
  return {.matrix = {shape, data},
          .input_group = !int8                ? 0
                         : shape.is_integer() ? shape.block_inputs
                                              : kFloatActivationGroup};
}

// pack(begin, end, data) for the matrix's strips, unless this only plans.
template <class Pack>
Linear WeightPacker::packed(WeightKind kind, const MatrixShape& shape, int64_t strips_at_once, Pack pack) {
  std::byte* data = take(kind, shape.bytes());
  if (data && !reserves_only_) {
    device_->threads().parallel_for(shape.num_strips(), strips_at_once,
                                    [&](int64_t begin, int64_t end, int) { pack(begin, end, data); });
    report();
  }
  return with_input(shape, data);
}

Linear WeightPacker::linear(WeightKind kind, const WeightSource& source) {
  const MatrixShape shape = plan_matrix(source, settings_.matrix_policy());
  return packed(kind, shape, kPackedStrips, [&](int64_t begin, int64_t end, std::byte* data) {
    for (int64_t strip = begin; strip < end; strip++) check_strip(source, 0, strip);
    pack_matrix(source, shape, begin, end, data);
  });
}

Linear WeightPacker::gate_up(WeightKind kind, const WeightSource& gate, const WeightSource& up) {
  const MatrixShape shape = plan_gate_up(gate, up, settings_.matrix_policy());
  return packed(kind, shape, 2 * kPackedStrips, [&](int64_t begin, int64_t end, std::byte* data) {
    for (int64_t strip = begin; strip < end; strip++)
      check_strip(strip % 2 == 0 ? gate : up, static_cast<int>(strip % 2), strip / 2);
    pack_gate_up(gate, up, shape, begin, end, data);
  });
}

PackedMatrix WeightPacker::derived(WeightKind kind, int64_t out_features, int64_t in_features,
                                   const std::function<void(int64_t, float*)>& fill) {
  WeightSource source =
      whole({.dtype = settings_.compute_dtype, .out_features = out_features, .in_features = in_features});
  if (!planning()) {
    derived_values_.resize(static_cast<size_t>(out_features * in_features));
    derived_rounded_.resize(derived_values_.size());
    device_->threads().parallel_for(out_features, 8, [&](int64_t begin, int64_t end, int) {
      for (int64_t out = begin; out < end; out++) {
        float* row = derived_values_.data() + out * in_features;
        fill(out, row);
        for (int64_t in = 0; in < in_features; in++)
          derived_rounded_[static_cast<size_t>(out * in_features + in)] = bf16(row[in]);
      }
    });
    source.data = settings_.float32() ? static_cast<const void*>(derived_values_.data()) : derived_rounded_.data();
  }
  const MatrixShape shape = plan_matrix(source, settings_.matrix_policy());
  const auto pack = [&](int64_t begin, int64_t end, std::byte* data) { pack_matrix(source, shape, begin, end, data); };
  return packed(kind, shape, kPackedStrips, pack).matrix;
}

namespace {

// Part `rank` of `size` of `total` outputs or inputs; the caller has checked that it divides, or that any cut is fine.
struct Share {
  int64_t begin = 0, count = 0;
  Share(int64_t begin, int64_t count) : begin(begin), count(count) {}
  Share(int64_t total, int rank, int size, int64_t unit = 1)
      : begin(total * rank / size * unit), count(total * (rank + 1) / size * unit - begin) {}
};

WeightSource outputs(WeightSource source, const Share& share) {
  source.out_begin += share.begin;
  source.out_count = share.count;
  return source;
}

WeightSource inputs(WeightSource source, const Share& share) {
  source.in_begin += share.begin;
  source.in_count = share.count;
  return source;
}

class Loader {
 public:
  Loader(const ModelConfig& config, const ModelSettings& settings, const WeightCatalog& catalog, WeightPacker& packer)
      : config_(config), settings_(settings), catalog_(catalog), packer_(packer) {}

  Result<ModelWeights> load();
  Result<LayerWeights> layer(int layer_idx);
  Result<FeedForwardWeights> expert(const std::string& prefix, int32_t expert);

 private:
  Result<AttentionWeights> attention(const std::string& prefix);
  Result<IndexerWeights> indexer(const std::string& prefix);
  Status absorbed_form(const std::string& name, const WeightSource& kv_b, AttentionWeights& weights);
  Result<FeedForwardWeights> feed_forward(WeightKind kind, const std::string& prefix, int64_t width, int part,
                                          int num_parts);
  Result<MoeWeights> moe(int layer_idx, const std::string& prefix);
  Result<Linear> linear(WeightKind kind, const std::string& name, int64_t out_features, int64_t in_features,
                        std::optional<Share> own_outputs = {}, std::optional<Share> own_inputs = {});
  Result<Linear> pack(WeightKind kind, const std::string& name, const WeightSource& source);
  Status check_finite(const std::string& name, const std::string& second = {});
  Result<View<const float, 1>> norm(const std::string& name, int64_t size);

  const ModelConfig& config_;
  const ModelSettings& settings_;
  const WeightCatalog& catalog_;
  WeightPacker& packer_;
  int num_moe_layers_ = 0;  // so far
  // The largest expert so far: in bytes, and of which layer.
  size_t largest_expert_ = 0;
  std::string largest_prefix_;
};

// An error if what was packed last held a number that is not finite; `second`: the name of gate_up's other source.
Status Loader::check_finite(const std::string& name, const std::string& second) {
  const auto found = packer_.take_not_finite();
  if (!found) return {};
  return std::unexpected(catalog_.not_finite(found->source == 0 ? name : second, found->index));
}

// Packs a weight and lets go of its pages in the file.
Result<Linear> Loader::pack(WeightKind kind, const std::string& name, const WeightSource& source) {
  const Linear linear = packer_.linear(kind, source);
  RETURN_IF_ERROR(check_finite(name));
  if (!packer_.planning()) catalog_.drop_pages(source);
  return linear;
}

Result<Linear> Loader::linear(WeightKind kind, const std::string& name, int64_t out_features, int64_t in_features,
                              std::optional<Share> own_outputs, std::optional<Share> own_inputs) {
  ASSIGN_OR_RETURN(WeightSource source, catalog_.linear(name, out_features, in_features));
  if (own_outputs) source = outputs(source, *own_outputs);
  if (own_inputs) source = inputs(source, *own_inputs);
  return pack(kind, name, source);
}

Result<View<const float, 1>> Loader::norm(const std::string& name, int64_t size) {
  ASSIGN_OR_RETURN(const std::vector<float> values, catalog_.vector(name, size));
  return packer_.vector(values);
}

Result<ModelWeights> Loader::load() {
  ModelWeights weights;
  const Share vocab(config_.vocab_size, settings_.tp_rank, settings_.tp_size);
  ASSIGN_OR_RETURN(const TensorRef embedding, catalog_.embedding());
  const size_t row_bytes = static_cast<size_t>(config_.hidden_size) * dtype_size(embedding.spec.dtype);
  weights.embedding =
      packer_.table(WeightKind::kEmbedding, embedding.spec.dtype, embedding.data,
                    static_cast<size_t>(vocab.begin) * row_bytes, static_cast<size_t>(vocab.count) * row_bytes);
  RETURN_IF_ERROR(check_finite(embedding.spec.name));
  weights.embedding_dtype = embedding.spec.dtype;
  weights.vocab_begin = vocab.begin;
  weights.vocab_count = vocab.count;
  for (int layer_idx = 0; layer_idx < config_.num_layers; layer_idx++) {
    ASSIGN_OR_RETURN(LayerWeights layer_weights, layer(layer_idx));
    weights.layers.push_back(std::move(layer_weights));
  }
  ASSIGN_OR_RETURN(weights.final_norm, norm("model.norm.weight", config_.hidden_size));
  ASSIGN_OR_RETURN(const WeightSource head, catalog_.head());
  ASSIGN_OR_RETURN(weights.head, pack(WeightKind::kHead, config_.tie_word_embeddings ? embedding.spec.name : "lm_head",
                                      outputs(head, vocab)));
  for (int buffer = 0; buffer < settings_.num_move_buffers && largest_expert_ > 0; buffer++) {
    packer_.reserve_only(true);
    const auto reserved = expert(largest_prefix_, 0);
    packer_.reserve_only(false);
    ASSIGN_OR_RETURN(const FeedForwardWeights room, reserved);
    weights.move_buffers.push_back({room.gate_up.matrix, room.down.matrix});
  }
  return weights;
}

Result<LayerWeights> Loader::layer(int layer_idx) {
  const std::string prefix = fmt::format("model.layers.{}.", layer_idx);
  LayerWeights weights;
  ASSIGN_OR_RETURN(weights.attention, attention(prefix + "self_attn."));
  if (config_.has_indexer(layer_idx)) {
    ASSIGN_OR_RETURN(weights.attention.indexer, indexer(prefix + "self_attn.indexer."));
  }
  ASSIGN_OR_RETURN(weights.attention.input_norm, norm(prefix + "input_layernorm.weight", config_.hidden_size));
  ASSIGN_OR_RETURN(weights.post_attention_norm, norm(prefix + "post_attention_layernorm.weight", config_.hidden_size));
  if (config_.is_moe_layer(layer_idx)) {
    ASSIGN_OR_RETURN(weights.moe, moe(layer_idx, prefix + "mlp."));
  } else {
    ASSIGN_OR_RETURN(weights.dense, feed_forward(WeightKind::kDense, prefix + "mlp.", config_.intermediate_size,
                                                 settings_.tp_rank, settings_.tp_size));
  }
  return weights;
}

Result<AttentionWeights> Loader::attention(const std::string& prefix) {
  AttentionWeights weights;
  const int64_t qk = config_.qk_head_dim(), kv = config_.qk_nope_head_dim + config_.v_head_dim, v = config_.v_head_dim,
                hidden = config_.hidden_size, heads = config_.num_heads;
  const auto own_heads = [&](int64_t head_dim) { return Share(heads, settings_.tp_rank, settings_.tp_size, head_dim); };
  constexpr WeightKind kKind = WeightKind::kAttention;
  if (config_.q_lora_rank == 0) {
    ASSIGN_OR_RETURN(weights.q, linear(kKind, prefix + "q_proj", heads * qk, hidden, own_heads(qk)));
  } else {
    ASSIGN_OR_RETURN(weights.q_a, linear(kKind, prefix + "q_a_proj", config_.q_lora_rank, hidden));
    ASSIGN_OR_RETURN(weights.q_a_norm, norm(prefix + "q_a_layernorm.weight", config_.q_lora_rank));
    ASSIGN_OR_RETURN(weights.q_b, linear(kKind, prefix + "q_b_proj", heads * qk, config_.q_lora_rank, own_heads(qk)));
  }
  ASSIGN_OR_RETURN(weights.kv_a, linear(kKind, prefix + "kv_a_proj_with_mqa", config_.kv_cache_dim(), hidden));
  ASSIGN_OR_RETURN(weights.kv_a_norm, norm(prefix + "kv_a_layernorm.weight", config_.kv_lora_rank));
  ASSIGN_OR_RETURN(const WeightSource kv_b, catalog_.linear(prefix + "kv_b_proj", heads * kv, config_.kv_lora_rank));
  const WeightSource own_kv_b = outputs(kv_b, own_heads(kv));
  RETURN_IF_ERROR(absorbed_form(prefix + "kv_b_proj", own_kv_b, weights));
  ASSIGN_OR_RETURN(weights.kv_b, pack(WeightKind::kKvB, prefix + "kv_b_proj", own_kv_b));
  ASSIGN_OR_RETURN(weights.o, linear(kKind, prefix + "o_proj", hidden, heads * v, {}, own_heads(v)));
  return weights;
}

Result<IndexerWeights> Loader::indexer(const std::string& prefix) {
  const int64_t heads = config_.indexer->num_heads, dim = config_.indexer->head_dim;
  IndexerWeights weights;
  ASSIGN_OR_RETURN(weights.query, linear(WeightKind::kIndexer, prefix + "wq_b", heads * dim, config_.q_lora_rank));
  ASSIGN_OR_RETURN(weights.key, linear(WeightKind::kIndexer, prefix + "wk", dim, config_.hidden_size));
  ASSIGN_OR_RETURN(weights.key_norm, norm(prefix + "k_norm.weight", dim));
  ASSIGN_OR_RETURN(weights.key_norm_bias, norm(prefix + "k_norm.bias", dim));
  ASSIGN_OR_RETURN(const Linear head_weights,
                   linear(WeightKind::kIndexer, prefix + "weights_proj", heads, config_.hidden_size));
  weights.head_weights = head_weights.matrix;
  return weights;
}

// The absorbed form's two halves of kv_b, a head each: its values as the file holds them, and its keys transposed,
// which no quantized layout can give, so they are dequantized once.
Status Loader::absorbed_form(const std::string& name, const WeightSource& kv_b, AttentionWeights& weights) {
  const int64_t nope = config_.qk_nope_head_dim, v = config_.v_head_dim, rank = config_.kv_lora_rank;
  const int64_t num_heads = kv_b.out_count / (nope + v);
  for (int64_t head = 0; head < num_heads; head++) {
    const int64_t first_row = head * (nope + v);
    weights.query_absorb.push_back(
        packer_.derived(WeightKind::kKvBAbsorbed, rank, nope, [&](int64_t out, float* values) {
          for (int64_t in = 0; in < nope; in++) read_values(kv_b, first_row + in, out, 1, values + in);
        }));
    weights.value_absorb.push_back(
        packer_.linear(WeightKind::kKvBAbsorbed, outputs(kv_b, Share(first_row + nope, v))).matrix);
  }
  return check_finite(name);
}

Result<FeedForwardWeights> Loader::feed_forward(WeightKind kind, const std::string& prefix, int64_t width, int part,
                                                int num_parts) {
  const Share share(width, part, num_parts);
  ASSIGN_OR_RETURN(const WeightSource gate, catalog_.linear(prefix + "gate_proj", width, config_.hidden_size));
  ASSIGN_OR_RETURN(const WeightSource up, catalog_.linear(prefix + "up_proj", width, config_.hidden_size));
  FeedForwardWeights weights;
  const WeightSource own_gate = outputs(gate, share), own_up = outputs(up, share);
  weights.gate_up = packer_.gate_up(kind, own_gate, own_up);
  RETURN_IF_ERROR(check_finite(prefix + "gate_proj", prefix + "up_proj"));
  if (!packer_.planning()) catalog_.drop_pages(own_gate), catalog_.drop_pages(own_up);
  ASSIGN_OR_RETURN(weights.down, linear(kind, prefix + "down_proj", config_.hidden_size, width, {}, share));
  weights.width = share.count;
  return weights;
}

// All of its width, or this rank's part.
Result<FeedForwardWeights> Loader::expert(const std::string& prefix, int32_t expert) {
  const bool whole = settings_.expert_parallel;
  return feed_forward(WeightKind::kExperts, fmt::format("{}experts.{}.", prefix, expert), config_.moe_intermediate_size,
                      whole ? 0 : settings_.tp_rank, whole ? 1 : settings_.tp_size);
}

Result<MoeWeights> Loader::moe(int layer_idx, const std::string& prefix) {
  MoeWeights weights;
  ASSIGN_OR_RETURN(const Linear router,
                   linear(WeightKind::kRouter, prefix + "gate", config_.num_experts, config_.hidden_size));
  weights.router = router.matrix;
  if (config_.topk_method == TopkMethod::kNoauxTc) {
    ASSIGN_OR_RETURN(weights.choice_bias, norm(prefix + "gate.e_score_correction_bias", config_.num_experts));
  }
  const bool whole_experts = settings_.expert_parallel;
  const std::span<const int32_t> slots = settings_.placement->slots(num_moe_layers_++, settings_.ep_rank);
  if (slots.empty()) {
    // What experts elsewhere want to be fed is asked of one that is not loaded.
    WeightPacker planner = WeightPacker::planner(settings_);
    ASSIGN_OR_RETURN(
        const FeedForwardWeights expert_weights,
        Loader(config_, settings_, catalog_, planner)
            .feed_forward(WeightKind::kExperts, prefix + "experts.0.", config_.moe_intermediate_size, 0, 1));
    weights.input_group = expert_weights.gate_up.input_group;
    weights.width = expert_weights.width;
  }
  for (const int32_t expert : slots) {
    packer_.reserve_only(expert == ExpertPlacement::kSpare);  // as much as the first expert takes
    const auto loaded = this->expert(prefix, std::max(expert, 0));
    packer_.reserve_only(false);
    ASSIGN_OR_RETURN(const FeedForwardWeights expert_weights, loaded);
    const size_t bytes = expert_weights.gate_up.matrix.shape.bytes() + expert_weights.down.matrix.shape.bytes();
    if (bytes > largest_expert_) {
      largest_expert_ = bytes;
      largest_prefix_ = prefix;
    }
    const int group = expert_weights.gate_up.input_group;
    // They take the same rows. What each makes of them may be held otherwise: files of float32 scales have some experts
    // whose scales fp16 holds, and some whose only bf16 does.
    if (!weights.gate_up.empty() && group != weights.input_group)
      return std::unexpected(
          experts_differ(layer_idx, {std::max(slots.front(), 0), weights.input_group}, {std::max(expert, 0), group}));
    weights.input_group = group;
    weights.width = expert_weights.width;
    weights.gate_up.push_back(expert_weights.gate_up.matrix);
    weights.down.push_back(expert_weights.down.matrix);
  }
  if (config_.num_shared_experts > 0) {
    // Whole on every rank: it works on the rank's own token rows, so that no byte moves for it. Without expert
    // parallelism every rank has all rows, and the width is split like the experts'.
    ASSIGN_OR_RETURN(weights.shared,
                     feed_forward(WeightKind::kSharedExperts, prefix + "shared_experts.",
                                  int64_t{config_.num_shared_experts} * config_.moe_intermediate_size,
                                  whole_experts ? 0 : settings_.tp_rank, whole_experts ? 1 : settings_.tp_size));
  }
  return weights;
}

}  // namespace

Error experts_differ(int layer, const ExpertInput& one, const ExpertInput& other) {
  const auto rows = [](const ExpertInput& input) {
    return (input.group == 0 ? "rows of floats" : fmt::format("int8 rows, {} values a scale", input.group)) +
           input.where;
  };
  return {
      ErrorCode::kUnsupported,
      fmt::format("model.layers.{}.mlp.experts.{}: gate_proj and up_proj take {}, those of experts.{} {}; rows go to "
                  "all experts of a layer in one form, so these weights must be quantized alike in all of them; "
                  "--activation-dtype bf16, which quantizes no rows, runs them as they are",
                  layer, one.expert, rows(one), other.expert, rows(other)),
      {}};
}

Result<ModelWeights> load_weights(const ModelConfig& config, const ModelSettings& settings,
                                  const WeightCatalog& catalog, WeightPacker& packer) {
  return Loader(config, settings, catalog, packer).load();
}

Result<LayerWeights> load_layer(const ModelConfig& config, const ModelSettings& settings, const WeightCatalog& catalog,
                                WeightPacker& packer, int layer) {
  return Loader(config, settings, catalog, packer).layer(layer);
}

Result<LoadedExpert> load_expert(const ModelConfig& config, const ModelSettings& settings, const WeightCatalog& catalog,
                                 WeightPacker& packer, int layer, int32_t expert) {
  Loader loader(config, settings, catalog, packer);
  const std::string prefix = layer_name(layer, "mlp.");
  const int64_t hidden = config.hidden_size, width = config.moe_intermediate_size;
  for (const char* part : {"gate_proj", "up_proj", "down_proj"}) {
    if (packer.planning()) break;
    const bool is_down = part == std::string_view("down_proj");
    ASSIGN_OR_RETURN(const WeightSource source, catalog.linear(fmt::format("{}experts.{}.{}", prefix, expert, part),
                                                               is_down ? hidden : width, is_down ? width : hidden));
    RETURN_IF_ERROR(catalog.fetch_pages(source));
  }
  ASSIGN_OR_RETURN(const FeedForwardWeights weights, loader.expert(prefix, expert));
  return LoadedExpert{{weights.gate_up.matrix, weights.down.matrix}, weights.gate_up.input_group};
}

}  // namespace cachalot
