#include "calibrate/layer_pass.h"

#include <algorithm>
#include <numeric>

#include "base/math.h"
#include "device/thread_pool.h"
#include "model/deepseek.h"

namespace cachalot {
namespace {

constexpr int kBlockSize = 64;

}  // namespace

LayerPass::LayerPass(const ModelFiles& files, Device& device, const ModelSettings& settings, Ops ops,
                     Workspace workspace, Rope rope, std::unique_ptr<Mesh> mesh, std::unique_ptr<Group> group,
                     std::unique_ptr<ExpertExchange> exchange)
    : files_(files),
      config_(files.config()),
      device_(device),
      settings_(settings),
      ops_(std::move(ops)),
      workspace_(std::move(workspace)),
      rope_(std::move(rope)),
      mesh_(std::move(mesh)),
      group_(std::move(group)),
      exchange_(std::move(exchange)),
      parallel_(*group_, ops_, workspace_, settings_.compute_dtype),
      attention_(config_, ops_, workspace_, parallel_, rope_.table(), Rope::softmax_scale(config_)),
      feed_forward_(config_, settings_, ops_, workspace_, parallel_, exchange_.get()),
      layout_(settings.max_rows, kBlockSize) {}

Result<std::unique_ptr<LayerPass>> LayerPass::create(const ModelFiles& files, Device& device,
                                                     const std::vector<std::vector<TokenId>>& sequences) {
  const ModelConfig& config = files.config();
  ModelSettings settings{
      .compute_dtype = DType::kF32, .isa = detect_isa(), .placement = even_placement(config, 1), .max_logit_rows = 1};
  for (const std::vector<TokenId>& sequence : sequences) {
    settings.max_rows += std::ssize(sequence);
    settings.max_positions = std::max<int64_t>(settings.max_positions, std::ssize(sequence));
  }
  ASSIGN_OR_RETURN(Ops ops, Ops::create(settings.isa, device, DeepseekModel::ops_limits(config, settings)));
  ASSIGN_OR_RETURN(Workspace workspace, Workspace::create(config, settings));
  ASSIGN_OR_RETURN(Rope rope, Rope::create(config, settings.max_positions));
  ASSIGN_OR_RETURN(auto mesh, Mesh::create({}, {}));
  ASSIGN_OR_RETURN(auto group, make_group(*mesh, {.members = {0}}));
  std::unique_ptr<ExpertExchange> exchange;
  if (config.num_experts > 0) {
    ASSIGN_OR_RETURN(exchange, ExpertExchange::create(*mesh, {0}, exchange_layout(config, settings)));
  }
  std::unique_ptr<LayerPass> pass(new LayerPass(files, device, settings, std::move(ops), std::move(workspace),
                                                std::move(rope), std::move(mesh), std::move(group),
                                                std::move(exchange)));
  RETURN_IF_ERROR(pass->begin(sequences));
  return pass;
}

Status LayerPass::begin(const std::vector<std::vector<TokenId>>& sequences) {
  int num_blocks = 0;
  for (const std::vector<TokenId>& sequence : sequences) {
    blocks_.emplace_back(static_cast<size_t>(ceil_div(std::ssize(sequence), int64_t{kBlockSize})));
    std::iota(blocks_.back().begin(), blocks_.back().end(), num_blocks);
    num_blocks += static_cast<int>(blocks_.back().size());
  }
  for (size_t idx = 0; idx < sequences.size(); idx++) {
    const auto num_tokens = static_cast<int>(sequences[idx].size());
    layout_.add(
        {.num_tokens = num_tokens, .num_prompt_tokens = num_tokens, .tokens = sequences[idx], .blocks = blocks_[idx]});
  }
  batch_ = layout_.build(0);
  const int64_t num_slots = int64_t{num_blocks} * kBlockSize;
  ASSIGN_OR_RETURN(cache_memory_, Device::allocate(KvCache::bytes(config_, settings_.compute_dtype, num_slots)));
  cache_ = KvCache(config_, settings_.compute_dtype, cache_memory_.data(), num_slots);
  ASSIGN_OR_RETURN(const TensorRef embedding, files_.embedding());
  ops_.embed({.ids = batch_.token_ids,
              .table = embedding.data.data(),
              .dtype = embedding.spec.dtype,
              .vocab_count = config_.vocab_size,
              .out = workspace_.residual.rows(0, num_rows())});
  return {};
}

Status LayerPass::load(int layer) {
  WeightPacker planner = WeightPacker::planner(settings_);
  RETURN_IF_ERROR(load_layer(config_, settings_, files_, planner, layer));
  weight_memory_ = Buffer();  // before the next is there
  ASSIGN_OR_RETURN(weight_memory_, Device::allocate(planner.bytes()));
  WeightPacker packer = WeightPacker::packer(settings_, device_, weight_memory_.view<std::byte>(planner.bytes()), {});
  ASSIGN_OR_RETURN(weights_, load_layer(config_, settings_, files_, packer, layer));
  return {};
}

Status LayerPass::attend(int layer) {
  RETURN_IF_ERROR(load(layer));
  const View<float, 2> normed = workspace_.normed.rows(0, num_rows());
  ops_.add_norm({.residual = workspace_.residual.rows(0, num_rows()),
                 .delta = pending_,
                 .weight = weights_.attention.input_norm,
                 .epsilon = static_cast<float>(config_.rms_norm_eps),
                 .out = normed});
  RETURN_IF_ERROR(attention_.forward(weights_.attention, batch_, normed, cache_, layer));
  pending_ = workspace_.delta.rows(0, num_rows());
  const int64_t rank = config_.kv_lora_rank;
  const View<const float, 2> cache = cache_(CacheKind::kLatents, layer).as<float>();
  latents_.resize(static_cast<size_t>(num_rows() * rank));
  for (int64_t row = 0; row < num_rows(); row++)
    std::copy_n(cache.row(batch_.slots(row)), rank, latents_.data() + row * rank);
  return {};
}

Status LayerPass::feed_forward(int layer) {
  const View<float, 2> normed = workspace_.normed.rows(0, num_rows());
  ops_.add_norm({.residual = workspace_.residual.rows(0, num_rows()),
                 .delta = pending_,
                 .weight = weights_.post_attention_norm,
                 .epsilon = static_cast<float>(config_.rms_norm_eps),
                 .out = normed});
  return weights_.moe ? feed_forward_.moe(*weights_.moe, batch_, normed, layer, 0)
                      : feed_forward_.dense(*weights_.dense, batch_, normed, layer);
}

View<const float, 2> LayerPass::latents() const {
  return View<const float, 2>(latents_.data(), num_rows(), config_.kv_lora_rank);
}

View<const float, 2> LayerPass::attended() const {
  return View<const float, 2>(workspace_.attention.data(), num_rows(), config_.num_heads * config_.v_head_dim);
}

View<const float, 2> LayerPass::product() const {
  return View<const float, 2>(workspace_.intermediate.data(), num_rows(),
                              weights_.dense ? weights_.dense->width : weights_.moe->shared->width);
}

View<const float, 2> LayerPass::expert_product(int expert, std::span<const int32_t> row_ids) {
  const int64_t count = std::ssize(row_ids), hidden = config_.hidden_size, width = weights_.moe->width;
  expert_rows_.resize(static_cast<size_t>(count * hidden));
  expert_product_.resize(static_cast<size_t>(count * width));
  const View<float, 2> rows(expert_rows_.data(), count, hidden), product(expert_product_.data(), count, width);
  ops_.gather_rows(normed(), View<const int32_t, 1>(row_ids.data(), count), rows);
  ops_.gated_linear({.values = rows, .quantized = {}}, weights_.moe->gate_up[static_cast<size_t>(expert)], product, {});
  return product;
}

}  // namespace cachalot
