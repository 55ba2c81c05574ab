#include "weights/weight_catalog.h"

#include <gtest/gtest.h>

#include "base/file.h"
#include "weights/files_test_util.h"
#include "weights/model_files.h"
#include "weights/synth.h"

namespace cachalot {
namespace {

// A dense and an expert layer, and one for multi-token prediction. 64 inputs fit groups of 32 and 64, and none of 128.
constexpr const char* kConfig = R"({"architectures": ["DeepseekV3ForCausalLM"], "vocab_size": 96, "hidden_size": 256,
    "num_hidden_layers": 2, "num_attention_heads": 4, "q_lora_rank": 64, "kv_lora_rank": 64, "qk_nope_head_dim": 32,
    "qk_rope_head_dim": 16, "v_head_dim": 32, "intermediate_size": 384, "moe_intermediate_size": 128,
    "n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2, "first_k_dense_replace": 1, "n_group": 2,
    "topk_group": 1, "num_nextn_predict_layers": 1, "max_position_embeddings": 512})";

class PlannedWeightsOf : public testing::TestWithParam<QuantTarget> {};

TEST_P(PlannedWeightsOf, ConfigAloneAreThoseOfTheFiles) {
  const TestFolder folder;
  const Result<SynthSummary> written = synthesize(kConfig, "config.json", folder.path("m"), {.target = GetParam()});
  ASSERT_TRUE(written) << message_of(written);
  const Result<ModelFiles> files = ModelFiles::open(folder.path("m"));
  ASSERT_TRUE(files) << message_of(files);
  const PlannedWeights planned(files->config(), target_of(files->config().quantization), "config.json");
  EXPECT_EQ(planned.file_bytes(), written->num_bytes);
  for (const ModelTensor& tensor : model_tensors(files->config())) {
    if (!tensor.is_linear() || tensor.role == TensorRole::kHead) continue;
    const Result<WeightSource> plan = planned.linear(tensor.name, tensor.rows, tensor.cols),
                               file = files->linear(tensor.name, tensor.rows, tensor.cols);
    ASSERT_TRUE(plan && file) << tensor.name;
    EXPECT_EQ(plan->format, file->format) << tensor.name;
    EXPECT_EQ(plan->dtype, file->dtype) << tensor.name;
    EXPECT_EQ(plan->group_size, file->group_size) << tensor.name;
    EXPECT_EQ(plan->bits, file->bits) << tensor.name;
    EXPECT_EQ(plan->scale_dtype, file->scale_dtype) << tensor.name;
    EXPECT_EQ(plan->out_count, file->out_count);
  }
  EXPECT_EQ(planned.head()->format, files->head()->format);
  EXPECT_EQ(planned.embedding()->spec.dtype, files->embedding()->spec.dtype);
}

INSTANTIATE_TEST_SUITE_P(Formats, PlannedWeightsOf,
                         testing::Values(QuantTarget{}, QuantTarget{.format = WeightFormat::kFp8Block},
                                         QuantTarget{.format = WeightFormat::kAwq, .group_size = 32},
                                         QuantTarget{.format = WeightFormat::kAwq, .group_size = 128},
                                         QuantTarget{.format = WeightFormat::kPackedInt, .group_size = 32},
                                         QuantTarget{.format = WeightFormat::kMxfp4, .group_size = 32}),
                         [](const auto& info) {
                           return fmt::format("{}OfGroup{}", format_name(info.param.format), info.param.group_size);
                         });

// What DeepSeek V3.2's and GLM-5.2's files hold.
TEST(ModelTensors, OfAnIndexerAreInTheLayersThatHaveOne) {
  const auto indexers = [](const ModelConfig& config, int num_mtp_layers) {
    std::vector<std::string> names;
    for (const ModelTensor& tensor : model_tensors(config, num_mtp_layers))
      if (tensor.name.find(".indexer.") != std::string::npos)
        names.push_back(fmt::format("{} {}x{}", tensor.plain_name(), tensor.rows, tensor.cols));
    return names;
  };
  const std::string configs = CACHALOT_SOURCE_DIR "/tests/data/configs/";
  const auto read = [&](const std::string& name) {
    return parse_model_config(read_file(configs + name).value(), name).value();
  };
  const ModelConfig v32 = read("deepseek-v3.2.json");
  const std::vector<std::string> of_v32 = indexers(v32, 1);
  EXPECT_EQ(of_v32.size(), 62u * 5);
  const std::string prefix = "model.layers.0.self_attn.indexer.";
  EXPECT_EQ(std::vector(of_v32.begin(), of_v32.begin() + 5),
            (std::vector<std::string>{prefix + "wq_b.weight 8192x1536", prefix + "wk.weight 128x7168",
                                      prefix + "k_norm.weight 128x1", prefix + "k_norm.bias 128x1",
                                      prefix + "weights_proj.weight 64x7168"}));
  EXPECT_EQ(indexers(read("glm-5.2.json"), 1).size(), 22u * 5);
  EXPECT_TRUE(indexers(read("deepseek-r1.json"), 1).empty());
  const PlannedWeights planned(v32, {.format = WeightFormat::kFp8Block}, "config.json");
  EXPECT_EQ(planned.linear(prefix + "wk", 128, 7168)->format, SourceFormat::kFp8Block);
  EXPECT_EQ(planned.linear(prefix + "weights_proj", 64, 7168)->format, SourceFormat::kPlain);
}

TEST(PlannedWeights, ModulesThatAreNotConvertedAreNamedByTheirParts) {
  ModelConfig config = parse_model_config(kConfig, "config.json").value();
  config.quantization.modules_to_not_convert = {"self_attn", "mlp.gate", "layers.1.mlp.shared_experts."};
  const PlannedWeights planned(config, {.format = WeightFormat::kAwq, .group_size = 64}, "config.json");
  const auto format = [&](const char* name, int64_t rows, int64_t cols) {
    return planned.linear(name, rows, cols)->format;
  };
  EXPECT_EQ(format("model.layers.1.self_attn.o_proj", 256, 128), SourceFormat::kPlain);
  EXPECT_EQ(format("model.layers.1.mlp.shared_experts.up_proj", 128, 256), SourceFormat::kPlain);
  EXPECT_EQ(format("model.layers.0.mlp.gate_proj", 384, 256), SourceFormat::kAwq) << "mlp.gate is another module";
  EXPECT_EQ(format("model.layers.1.mlp.experts.1.up_proj", 128, 256), SourceFormat::kAwq);
}

// Shapes by which real models are planned: so many tensors and GiB are published, inv_freq and vision left out.
TEST(PlannedWeights, OfRealConfigsAreAsLargeAsThePublishedFiles) {
  struct Model {
    const char* name;
    size_t num_tensors;  // 0: not known of the language model alone
    double gib;
  };
  for (const Model& model :
       {Model{"deepseek-r1", 91'991, 641.3}, Model{"kimi-k2", 139'644 - 61, 958.5}, Model{"kimi-k2-thinking", 0, 553.4},
        Model{"kimi-k2.5", 0, 553.4}, Model{"glm-4.7-flash", 9'703, 58.2}, Model{"deepseek-v3.2", 92'425, 642.1},
        // Their last layer has no embedding and head of its own, which are planned.
        Model{"glm-5.1", 59'870 + 2, 1404.2 + 3.54}, Model{"glm-5.2", 0, 1403.2 + 3.54}}) {
    const std::string text = read_file(test_data(fmt::format("configs/{}.json", model.name))).value();
    const Result<ModelConfig> config = parse_model_config(text, model.name);
    ASSERT_TRUE(config) << message_of(config);
    EXPECT_TRUE(config->notes.empty()) << config->notes.front();
    const PlannedWeights planned(*config, target_of(config->quantization), model.name);
    EXPECT_NEAR(static_cast<double>(planned.file_bytes()) / (1 << 30), model.gib, 0.05) << model.name;
    size_t num_tensors = 0;
    for (const ModelTensor& tensor : model_tensors(*config, config->num_nextn_predict_layers)) {
      num_tensors +=
          tensor.is_linear() && planned.linear(tensor.name, tensor.rows, tensor.cols)->format == SourceFormat::kFp8Block
              ? 2
              : 1;
    }
    if (model.num_tensors > 0) {
      EXPECT_EQ(num_tensors, model.num_tensors) << model.name;
    }
  }
}

// What rows attend to hangs on close scores.
TEST(PlannedWeights, KeepAnIndexerFromFourBits) {
  const std::string text = read_file(test_data("configs/deepseek-v3.2.json")).value();
  const ModelConfig config = parse_model_config(text, "config.json").value();
  const auto format_of_keys = [&](const QuantTarget& target) {
    return PlannedWeights(config, target, "config.json")
        .linear("model.layers.3.self_attn.indexer.wk", 128, 7168)
        ->format;
  };
  EXPECT_EQ(format_of_keys({.format = WeightFormat::kFp8Block}), SourceFormat::kFp8Block);
  EXPECT_EQ(format_of_keys({.format = WeightFormat::kAwq}), SourceFormat::kPlain);
  EXPECT_EQ(format_of_keys({.format = WeightFormat::kMxfp4, .group_size = 32}), SourceFormat::kPlain);
}

// Each linear as its own group of compressed-tensors says, but for those that are ignored.
TEST(PlannedWeights, FollowTheGroupsOfCompressedTensors) {
  ModelConfig config = parse_model_config(kConfig, "config.json").value();
  config.tensor_prefix = "language_model.";
  QuantizationConfig& quantization = config.quantization;
  const QuantizationScheme int4{.format = WeightFormat::kPackedInt, .group_size = 32, .zero_point = false},
      int8{.format = WeightFormat::kPackedInt, .bits = 8, .group_size = 0, .zero_point = false},
      mxfp4{.format = WeightFormat::kMxfp4, .group_size = 32};
  quantization.groups = {{int8, {"re:.*self_attn.*"}}, {mxfp4, {"re:.*shared_experts"}}, {int4, {"Linear"}}};
  quantization.ignore = {"language_model.model.layers.0.self_attn.o_proj", "re:.*layers.0.mlp", "lm_head"};
  static_cast<QuantizationScheme&>(quantization) = int8;
  const auto planned_as = [&](const QuantTarget& target, const char* name, int64_t rows, int64_t cols) {
    return PlannedWeights(config, target, "config.json").linear(name, rows, cols).value();
  };
  const QuantTarget own = target_of(quantization);
  const WeightSource attention = planned_as(own, "model.layers.1.self_attn.o_proj", 256, 128);
  EXPECT_EQ(attention.format, SourceFormat::kPackedInt);
  EXPECT_EQ(attention.bits, 8);
  EXPECT_EQ(attention.group_size, 128);
  EXPECT_EQ(planned_as(own, "model.layers.0.self_attn.o_proj", 256, 128).format, SourceFormat::kPlain);
  EXPECT_EQ(planned_as(own, "model.layers.0.mlp.up_proj", 384, 256).format, SourceFormat::kPlain);
  EXPECT_EQ(planned_as(own, "model.layers.1.mlp.shared_experts.up_proj", 128, 256).format, SourceFormat::kMxfp4);
  EXPECT_EQ(planned_as(own, "model.layers.1.mlp.experts.3.up_proj", 128, 256).bits, 4);
  // Another format that is named instead is that of the same linears.
  const QuantTarget awq{.format = WeightFormat::kAwq, .group_size = 64};
  EXPECT_EQ(planned_as(awq, "model.layers.1.mlp.experts.3.up_proj", 128, 256).format, SourceFormat::kAwq);
  EXPECT_EQ(planned_as(awq, "model.layers.0.mlp.up_proj", 384, 256).format, SourceFormat::kPlain);
}

TEST(PlannedWeights, KnowWhetherListsLeaveAnyLinearQuantized) {
  ModelConfig config = load_model_config(test_data("golden/k2-ct-int4")).value();
  const auto is_quantized = [&] {
    return PlannedWeights(config, target_of(config.quantization), "config.json").is_quantized();
  };
  EXPECT_TRUE(is_quantized());
  config.quantization.ignore.emplace_back("re:.*experts");
  EXPECT_FALSE(is_quantized());
  config.quantization.ignore.pop_back();
  config.quantization.groups.front().targets = {"re:.*transformer\\.h\\..*"};
  EXPECT_FALSE(is_quantized());
}

}  // namespace

}  // namespace cachalot
