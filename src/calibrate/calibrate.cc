#include "calibrate/calibrate.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <unordered_map>

#include "calibrate/layer_pass.h"
#include "calibrate/scale_search.h"
#include "calibrate/texts.h"

namespace cachalot {
namespace {

// An expert that fewer rows have chosen is judged by others of the layer as well; of more, so many are looked at.
constexpr size_t kFewRows = 32, kMostExpertRows = 256;

// A linear, and what it reads.
struct Reading {
  std::string name;
  const Activations* seen = nullptr;
  double weight = 1;
};

class Calibrator {
 public:
  Calibrator(const ModelFiles& files, const CalibrateOptions& options, Device& device, LayerPass& pass)
      : files_(files), config_(files.config()), options_(options), threads_(device.threads()), pass_(pass) {
    for (ModelTensor& tensor : model_tensors(config_)) {
      std::string name = tensor.name;
      tensors_.emplace(std::move(name), std::move(tensor));
    }
  }

  Status run() {
    for (int layer = 0; layer < config_.num_layers; layer++) {
      RETURN_IF_ERROR(pass_.attend(layer));
      RETURN_IF_ERROR(attention(layer));
      RETURN_IF_ERROR(pass_.feed_forward(layer));
      RETURN_IF_ERROR(config_.is_moe_layer(layer) ? experts(layer) : dense(layer));
      if (options_.on_progress) options_.on_progress(layer + 1, config_.num_layers);
    }
    return {};
  }

  Calibration take() {
    if (weight_ > 0) {
      calibration_.plain_error = std::sqrt(plain_error_ / weight_);
      calibration_.error = std::sqrt(error_ / weight_);
    }
    return std::move(calibration_);
  }

 private:
  Status attention(int layer) {
    const auto name = [&](std::string_view part) { return layer_name(layer, fmt::format("self_attn.{}", part)); };
    const bool low_rank = config_.q_lora_rank > 0, indexes = config_.has_indexer(layer);
    const Activations hidden = observe(pass_.normed(), {}, threads_);
    std::vector<Reading> readings{{name(low_rank ? "q_a_proj" : "q_proj"), &hidden},
                                  {name("kv_a_proj_with_mqa"), &hidden}};
    if (indexes) readings.insert(readings.end(), {{name("indexer.wk"), {}}, {name("indexer.weights_proj"), {}}});
    RETURN_IF_ERROR(fold_into_norm(layer_name(layer, "input_layernorm.weight"), hidden, readings));

    if (low_rank) {
      const Activations query = observe(pass_.query_latents(), {}, threads_);
      readings = {{name("q_b_proj"), &query}};
      if (indexes) readings.push_back({name("indexer.wq_b"), {}});
      RETURN_IF_ERROR(fold_into_norm(name("q_a_layernorm.weight"), query, readings));
    }
    const Activations latents = observe(pass_.latents(), {}, threads_);
    RETURN_IF_ERROR(fold_into_norm(name("kv_a_layernorm.weight"), latents, {{name("kv_b_proj"), &latents}}));

    // What o_proj reads of a head are sums of rows that the head's values in kv_b have given.
    const Activations attended = observe(pass_.attended(), {}, threads_);
    ASSIGN_OR_RETURN(const std::vector<float> inverse, fold_into_rows({{name("o_proj"), &attended}}));
    if (inverse.empty()) return {};
    const int nope = config_.qk_nope_head_dim, v = config_.v_head_dim;
    std::vector<float> outputs(static_cast<size_t>(config_.num_heads * (nope + v)), 1.f);
    for (int head = 0; head < config_.num_heads; head++)
      std::copy_n(inverse.begin() + head * v, v, outputs.begin() + head * (nope + v) + nope);
    calibration_.foldings[name("kv_b_proj")].outputs = shared(std::move(outputs));
    return {};
  }

  Status dense(int layer) {
    const Activations hidden = observe(pass_.normed(), {}, threads_);
    const std::string mlp = layer_name(layer, "mlp");
    RETURN_IF_ERROR(fold_into_norm(layer_name(layer, "post_attention_layernorm.weight"), hidden,
                                   {{mlp + ".gate_proj", &hidden}, {mlp + ".up_proj", &hidden}}));
    return fold_into_up(mlp, observe(pass_.product(), {}, threads_));
  }

  Status experts(int layer) {
    const View<const float, 2> rows = pass_.normed();
    const Activations hidden = observe(rows, {}, threads_);
    const std::string mlp = layer_name(layer, "mlp");
    std::vector<Reading> readings{{mlp + ".gate", {}}};
    if (config_.num_shared_experts > 0) {
      readings.push_back({mlp + ".shared_experts.gate_proj", &hidden});
      readings.push_back({mlp + ".shared_experts.up_proj", &hidden});
      RETURN_IF_ERROR(fold_into_up(mlp + ".shared_experts", observe(pass_.product(), {}, threads_)));
    }
    const std::vector<std::vector<int32_t>> rows_of_experts = rows_by_expert();
    std::vector<Activations> seen(rows_of_experts.size());
    for (size_t expert = 0; expert < seen.size(); expert++) {
      const std::string name = fmt::format("{}.experts.{}", mlp, expert);
      const std::vector<int32_t>& chosen = rows_of_experts[expert];
      const bool is_known = chosen.size() >= kFewRows;
      if (is_known) seen[expert] = observe(rows, chosen, threads_);
      const double share =
          static_cast<double>(std::max<size_t>(chosen.size(), 1)) / static_cast<double>(rows.extent(0));
      for (const char* part : {".gate_proj", ".up_proj"})
        readings.push_back({name + part, is_known ? &seen[expert] : &hidden, share});
      const View<const float, 2> product = pass_.expert_product(static_cast<int>(expert), rows_to_try(chosen));
      RETURN_IF_ERROR(fold_into_up(name, observe(product, {}, threads_), share));
    }
    return fold_into_norm(layer_name(layer, "post_attention_layernorm.weight"), hidden, readings);
  }

  // [expert]: the rows that have chosen it.
  std::vector<std::vector<int32_t>> rows_by_expert() const {
    std::vector<std::vector<int32_t>> rows(static_cast<size_t>(config_.num_experts));
    const View<const int32_t, 2> ids = pass_.expert_ids();
    for (int32_t row = 0; row < ids.extent(0); row++)
      for (int64_t slot = 0; slot < ids.extent(1); slot++) rows[static_cast<size_t>(ids(row, slot))].push_back(row);
    return rows;
  }

  // Some of the rows that have chosen an expert; if these are few, some of all rows too.
  std::vector<int32_t> rows_to_try(const std::vector<int32_t>& chosen) const {
    std::vector<int32_t> rows;
    const size_t count = std::min(chosen.size(), kMostExpertRows);
    for (size_t idx = 0; idx < count; idx++) rows.push_back(chosen[idx * chosen.size() / count]);
    const auto num_all = static_cast<size_t>(pass_.normed().extent(0));
    const size_t num_more = std::min(num_all, kFewRows - std::min(kFewRows, count));
    for (size_t idx = 0; idx < num_more; idx++) rows.push_back(static_cast<int32_t>(idx * num_all / num_more));
    return rows;
  }

  // The norm's own type holds few quotients quite: what it then has decides on the factors.
  Status fold_into_norm(const std::string& norm, const Activations& all, const std::vector<Reading>& readings) {
    ASSIGN_OR_RETURN(ChosenFactors chosen, choose(all, readings));
    if (!chosen.factors.empty()) {
      ASSIGN_OR_RETURN(const std::vector<float> before, files_.vector(norm, std::ssize(chosen.factors)));
      const DType dtype = files_.checkpoint().find(norm)->spec.dtype;
      std::vector<float> outputs(before.size(), 1.f);
      for (size_t idx = 0; idx < before.size(); idx++) {
        const float after = rounded(before[idx] / chosen.factors[idx], dtype);
        const bool fits = after != 0 && std::isfinite(after);
        chosen.factors[idx] = fits ? before[idx] / after : 1;
        if (fits) outputs[idx] = after / before[idx];
      }
      calibration_.foldings[norm].outputs = shared(std::move(outputs));
    }
    fold(std::move(chosen), readings);
    return {};
  }

  // up's rows are what down reads, but for a factor that gate gives.
  Status fold_into_up(const std::string& mlp, const Activations& product, double weight = 1) {
    ASSIGN_OR_RETURN(std::vector<float> inverse, fold_into_rows({{mlp + ".down_proj", &product, weight}}));
    if (!inverse.empty()) calibration_.foldings[mlp + ".up_proj"].outputs = shared(std::move(inverse));
    return {};
  }

  // Gives the factors' inverses, to be folded into the rows that give what is read.
  Result<std::vector<float>> fold_into_rows(const std::vector<Reading>& readings) {
    ASSIGN_OR_RETURN(ChosenFactors chosen, choose(*readings[0].seen, readings));
    std::vector<float> inverse;
    for (const float factor : chosen.factors) inverse.push_back(1 / factor);
    fold(std::move(chosen), readings);
    return inverse;
  }

  Result<ChosenFactors> choose(const Activations& all, const std::vector<Reading>& readings) {
    std::vector<Reader> readers;
    bool powers_of_two = false;
    for (const Reading& reading : readings) {
      const ModelTensor& tensor = tensors_.at(reading.name);
      // What an indexer chooses by stays what it was, in its own type.
      powers_of_two = powers_of_two || tensor.role == TensorRole::kIndexer;
      if (!is_rounded(tensor)) continue;
      ASSIGN_OR_RETURN(const WeightSource source, files_.linear(tensor.name, tensor.rows, tensor.cols));
      readers.push_back({source, reading.seen, reading.weight});
    }
    if (readers.empty()) return ChosenFactors{};
    ChosenFactors chosen = choose_factors(all.magnitude, powers_of_two, readers, options_.target, threads_);
    plain_error_ += chosen.plain_error, error_ += chosen.error, weight_ += chosen.weight;
    return chosen;
  }

  void fold(ChosenFactors chosen, const std::vector<Reading>& readings) {
    const Folding::Numbers factors = chosen.factors.empty() ? nullptr : shared(std::move(chosen.factors));
    std::unordered_map<const Activations*, Folding::Numbers> importance;
    for (const Reading& reading : readings) {
      Folding& folding = calibration_.foldings[reading.name];
      folding.inputs = factors;
      if (!chosen.weighs || !is_rounded(tensors_.at(reading.name))) continue;
      Folding::Numbers& numbers = importance[reading.seen];
      if (!numbers) numbers = importance_of(*reading.seen);
      folding.importance = numbers;
    }
  }

  static Folding::Numbers shared(std::vector<float> numbers) {
    return std::make_shared<const std::vector<float>>(std::move(numbers));
  }

  static float rounded(float value, DType dtype) {
    if (dtype == DType::kF32) return value;
    return dtype == DType::kBF16 ? static_cast<float>(bf16(value)) : static_cast<float>(fp16(value));
  }

  // Mean squares over their mean.
  static Folding::Numbers importance_of(const Activations& seen) {
    const double sum = std::accumulate(seen.square.begin(), seen.square.end(), 0.0);
    if (sum == 0) return nullptr;
    std::vector<float> importance;
    for (const float square : seen.square)
      importance.push_back(static_cast<float>(square / sum * static_cast<double>(seen.square.size())));
    return shared(std::move(importance));
  }

  bool is_rounded(const ModelTensor& tensor) const {
    return wants_quantization(tensor, options_.target) && fits_quantization(tensor, options_.target);
  }

  const ModelFiles& files_;
  const ModelConfig& config_;
  const CalibrateOptions& options_;
  ThreadPool& threads_;
  LayerPass& pass_;
  std::unordered_map<std::string, ModelTensor> tensors_;
  Calibration calibration_;
  double plain_error_ = 0, error_ = 0, weight_ = 0;
};

}  // namespace

Result<Calibration> calibrate(const ModelFiles& files, const CalibrateOptions& options) {
  ASSIGN_OR_RETURN(const auto sequences,
                   read_calibration_texts(options.texts, files.name(), files.config(), options.most_tokens));
  Device device({.num_threads = options.num_threads});
  ASSIGN_OR_RETURN(const auto pass, LayerPass::create(files, device, sequences));
  Calibrator calibrator(files, options, device, *pass);
  RETURN_IF_ERROR(calibrator.run());
  Calibration calibration = calibrator.take();
  for (const auto& sequence : sequences) calibration.num_tokens += std::ssize(sequence);
  return calibration;
}

}  // namespace cachalot
