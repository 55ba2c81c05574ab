#include "weights/model_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <boost/json.hpp>
#include <cmath>
#include <numeric>

#include "weights/files_test_util.h"
#include "weights/linear_source.h"

namespace cachalot {
namespace {

using testing::HasSubstr;

// A one-layer model: 64 wide, 4 experts, so small that every test writes it anew.
std::string tiny_config(std::string_view changes = "{}") {
  boost::json::object config = boost::json::parse(read_file(test_data("configs/deepseek-r1.json")).value()).as_object();
  const boost::json::object tiny = boost::json::parse(R"({
      "vocab_size": 40, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "q_lora_rank": 32, "kv_lora_rank": 32,
      "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 16, "intermediate_size": 96, "moe_intermediate_size": 32,
      "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 2, "topk_group": 1, "first_k_dense_replace": 1,
      "num_nextn_predict_layers": 0, "quantization_config": null})")
                                       .as_object();
  const boost::json::object changed = boost::json::parse(changes).as_object();
  for (const auto& [key, value] : tiny) config[key] = value;
  for (const auto& [key, value] : changed) config[key] = value;
  return boost::json::serialize(config);
}

std::vector<TensorSpec> plain_tensors(const std::vector<ModelTensor>& tensors, DType dtype = DType::kBF16) {
  std::vector<TensorSpec> specs;
  for (const ModelTensor& tensor : tensors) {
    const bool is_matrix = tensor.is_linear() || tensor.role == TensorRole::kEmbedding;
    specs.push_back({tensor.is_linear() ? tensor.name + ".weight" : tensor.name, dtype,
                     is_matrix ? std::vector<int64_t>{tensor.rows, tensor.cols} : std::vector<int64_t>{tensor.rows}});
  }
  return specs;
}

class ModelFilesTest : public testing::Test {
 protected:
  // Writes the model and lets `change` alter its tensors before.
  template <class Change>
  Result<ModelFiles> open(const std::string& config, Change change) {
    std::vector<TensorSpec> tensors = plain_tensors(model_tensors(parse_model_config(config, "config.json").value()));
    change(tensors);
    std::filesystem::remove_all(folder_.path());
    write_zeros(folder_.path(), tensors);
    EXPECT_TRUE(write_file(folder_.path("config.json"), config));
    return ModelFiles::open(folder_.path());
  }
  Result<ModelFiles> open(const std::string& config) {
    return open(config, [](std::vector<TensorSpec>&) {});
  }

  static TensorSpec& spec(std::vector<TensorSpec>& tensors, std::string_view name) {
    return *std::ranges::find(tensors, name, &TensorSpec::name);
  }
  static void replace(std::vector<TensorSpec>& tensors, std::string_view name, const std::vector<TensorSpec>& with) {
    std::erase_if(tensors, [&](const TensorSpec& tensor) { return tensor.name == name; });
    tensors.insert(tensors.end(), with.begin(), with.end());
  }
  static std::vector<TensorSpec> awq(const std::string& prefix, int64_t out, int64_t in, int64_t group) {
    return {{prefix + ".qweight", DType::kI32, {in, out / 8}},
            {prefix + ".qzeros", DType::kI32, {in / group, out / 8}},
            {prefix + ".scales", DType::kF16, {in / group, out}}};
  }

  TestFolder folder_;
};

constexpr const char* kOProj = "model.layers.0.self_attn.o_proj";

TEST_F(ModelFilesTest, OpensAModelAndGivesItsParts) {
  const Result<ModelFiles> files = open(tiny_config());
  ASSERT_TRUE(files) << message_of(files);
  const Result<WeightSource> source = files->linear(kOProj, 64, 32);
  ASSERT_TRUE(source) << message_of(source);
  EXPECT_EQ(source->format, SourceFormat::kPlain);
  EXPECT_EQ(source->dtype, DType::kBF16);
  EXPECT_EQ(source->out_count, 64);
  EXPECT_EQ(source->in_count, 32);
  EXPECT_EQ(files->vector("model.norm.weight", 64)->size(), 64u);
  EXPECT_EQ(files->embedding()->data.size(), 40u * 64 * 2);
  EXPECT_EQ(files->head()->out_features, 40);
  files->prefetch(*source);
  files->drop_pages(*source);
  EXPECT_EQ(files->fingerprint()->size(), 32u);
}

TEST_F(ModelFilesTest, TakesTheFormatOfEachLinearFromTheFile) {
  const Result<ModelFiles> files = open(tiny_config(), [](std::vector<TensorSpec>& tensors) {
    replace(tensors, "lm_head.weight", awq("lm_head", 40, 64, 32));
    replace(tensors, "model.layers.0.mlp.up_proj.weight",
            {{"model.layers.0.mlp.up_proj.weight", DType::kF8E4M3, {96, 64}},
             {"model.layers.0.mlp.up_proj.weight_scale_inv", DType::kF32, {1, 1}}});
    spec(tensors, "model.norm.weight").dtype = DType::kF16;
    spec(tensors, "model.layers.1.mlp.gate.weight").dtype = DType::kF32;
  });
  ASSERT_TRUE(files) << message_of(files);
  EXPECT_EQ(files->head()->format, SourceFormat::kAwq);
  EXPECT_EQ(files->head()->group_size, 32);
  EXPECT_NE(files->head()->zeros, nullptr);
  EXPECT_EQ(files->linear("model.layers.0.mlp.up_proj", 96, 64)->format, SourceFormat::kFp8Block);
  EXPECT_EQ(files->linear("model.layers.1.mlp.gate", 4, 64)->dtype, DType::kF32);
}

TEST_F(ModelFilesTest, GivesTheEmbeddingAsATiedHead) {
  const Result<ModelFiles> files = open(tiny_config(R"({"tie_word_embeddings": true})"));
  ASSERT_TRUE(files) << message_of(files);
  EXPECT_EQ(files->checkpoint().find("lm_head.weight"), nullptr);
  EXPECT_EQ(files->head()->data, files->embedding()->data.data());
}

TEST_F(ModelFilesTest, ReportsMissingAndUnexpectedTensors) {
  EXPECT_THAT(message_of(open(tiny_config(),
                              [](std::vector<TensorSpec>& tensors) {
                                replace(tensors, "model.norm.weight", {});
                                replace(tensors, "model.layers.1.mlp.experts.3.up_proj.weight", {});
                              })),
              HasSubstr("2 tensors that config.json asks for are missing: model.layers.1.mlp.experts.3.up_proj.weight, "
                        "model.norm.weight"));
  EXPECT_THAT(message_of(open(tiny_config(),
                              [](std::vector<TensorSpec>& tensors) {
                                for (int idx = 0; idx < 9; idx++)
                                  tensors.push_back({fmt::format("extra.{}", idx), DType::kF32, {1}});
                              })),
              HasSubstr("9 tensors have no place in the model that config.json describes: extra.0, extra.1, extra.2, "
                        "extra.3, extra.4 and 4 more"));
  EXPECT_TRUE(open(tiny_config(), [](std::vector<TensorSpec>& tensors) {
    tensors.push_back({"model.layers.0.self_attn.rotary_emb.inv_freq", DType::kF32, {4}});
  }));
}

TEST_F(ModelFilesTest, NamesFileAndTensorOfAWrongShapeOrDtype) {
  const auto with = [&](auto change) { return message_of(open(tiny_config(), change)); };
  const std::string name = std::string(kOProj) + ".weight";
  EXPECT_THAT(
      with([&](auto& tensors) { spec(tensors, name).shape = {32, 64}; }),
      HasSubstr("model.safetensors: tensor " + name + ": its shape is [32, 64]; by config.json it must be [64, 32]"));
  EXPECT_THAT(with([&](auto& tensors) { spec(tensors, name).dtype = DType::kI32; }), HasSubstr("its dtype is I32"));
  EXPECT_THAT(with([&](auto& tensors) { spec(tensors, name).dtype = DType::kF8E4M3; }),
              HasSubstr("_scale_inv, the scales of its blocks, is missing"));
  EXPECT_THAT(with([&](auto& tensors) { spec(tensors, "model.norm.weight").shape = {63}; }), HasSubstr("[63]"));
  EXPECT_THAT(with([&](auto& tensors) { spec(tensors, "model.norm.weight").dtype = DType::kI8; }),
              HasSubstr("its dtype is I8"));
  const auto quantized = [&](auto change) {
    return with([&](std::vector<TensorSpec>& tensors) {
      replace(tensors, name, awq(kOProj, 64, 32, 32));
      change(tensors);
    });
  };
  const std::string prefix = kOProj;
  EXPECT_EQ(quantized([](auto&) {}), "no error");
  EXPECT_THAT(quantized([&](auto& tensors) { replace(tensors, prefix + ".scales", {}); }),
              HasSubstr(prefix + ".scales is missing"));
  EXPECT_THAT(quantized([&](auto& tensors) { replace(tensors, prefix + ".qzeros", {}); }),
              HasSubstr(prefix + ".qzeros is missing"));
  EXPECT_THAT(quantized([&](auto& tensors) { spec(tensors, prefix + ".scales").shape = {2, 64}; }),
              HasSubstr("a multiple of 32 inputs"));
  EXPECT_THAT(quantized([&](auto& tensors) { spec(tensors, prefix + ".scales").dtype = DType::kI8; }),
              HasSubstr("its dtype is I8"));
  EXPECT_THAT(quantized([&](auto& tensors) { spec(tensors, prefix + ".qweight").shape = {64, 8}; }),
              HasSubstr("its shape is [64, 8]"));
  EXPECT_THAT(quantized([&](auto& tensors) { tensors.push_back({prefix + ".weight", DType::kBF16, {64, 32}}); }),
              HasSubstr("one of them"));
}

// A linear in each of compressed-tensors' formats, and what a file that is almost right is told.
TEST_F(ModelFilesTest, NamesWhatIsWrongWithCompressedTensors) {
  const std::string prefix = kOProj;  // [64, 32]
  using Specs = std::vector<TensorSpec>;
  const auto part = [&](const char* ending, DType dtype, std::vector<int64_t> shape) {
    return TensorSpec{prefix + "." + ending, dtype, std::move(shape)};
  };
  const TensorSpec int4 = part("weight_packed", DType::kI32, {64, 4}),
                   int8 = part("weight_packed", DType::kI32, {64, 8}),
                   scale = part("weight_scale", DType::kBF16, {64, 1}),
                   codes = part("weight_packed", DType::kU8, {64, 16}),
                   powers = part("weight_scale", DType::kU8, {64, 1}), fp8 = part("weight", DType::kF8E4M3, {64, 32}),
                   zeros = part("weight_zero_point", DType::kI32, {8, 1});
  struct Case {
    Specs with;
    std::string message;
  };
  for (const Case& test : std::vector<Case>{
           {{int4, scale}, "no error"},
           {{int8, scale}, "no error"},
           {{int4, scale, zeros}, "no error"},
           {{int8, scale, part("weight_zero_point", DType::kI32, {16, 1})}, "no error"},
           {{codes, powers}, "no error"},
           {{codes, part("weight_scale", DType::kF8E8M0, {64, 1})}, "no error"},
           {{part("weight", DType::kI8, {64, 16}), part("scale", DType::kF8E8M0, {64, 1})}, "no error"},
           {{fp8, part("weight_scale", DType::kF16, {1, 1})}, "no error"},
           {{fp8, part("weight_scale", DType::kF32, {64, 1})}, "no error"},
           {{fp8, part("weight_scale", DType::kF32, {})}, "no error"},
           {{fp8, part("scale", DType::kF8E8M0, {1, 1})}, "no error"},
           {{scale, part("weight_shape", DType::kI64, {2})},
            "are missing: model.layers.0.self_attn.o_proj.weight_packed"},
           {{powers}, "are missing: model.layers.0.self_attn.o_proj.weight_packed"},
           {{part("scales", DType::kF16, {1, 64})}, "are missing: model.layers.0.self_attn.o_proj.qweight"},
           {{part("weight_scale_inv", DType::kF32, {1, 1})}, "are missing: model.layers.0.self_attn.o_proj.weight"},
           {{int4}, "its scales, weight_scale, are missing"},
           {{codes}, "its scales are missing"},
           {{int4, scale, part("weight", DType::kBF16, {64, 32})}, "one of them"},
           {{part("weight_packed", DType::kI32, {64, 5}), scale}, "its shape is [64, 5]"},
           {{part("weight_packed", DType::kI32, {4, 64}), scale}, "its shape is [4, 64]"},
           {{int4, part("weight_scale", DType::kBF16, {64, 2})}, "a multiple of 32 inputs"},
           {{int4, part("weight_scale", DType::kBF16, {1, 64})}, "its shape is [1, 64]"},
           {{int4, part("weight_scale", DType::kU8, {64, 1})}, "its dtype is U8"},
           {{int4, scale, part("weight_zero_point", DType::kI32, {64, 1})}, "its shape is [64, 1]"},
           {{int4, scale, part("weight_zero_point", DType::kI8, {8, 1})}, "its dtype is I8"},
           {{int4, scale, part("weight_shape", DType::kI64, {2})}, "weight_shape: says [0, 0]; by config.json"},
           {{int4, scale, part("weight_shape", DType::kF32, {2})}, "weight_shape: its dtype is F32"},
           {{int4, scale, part("weight_g_idx", DType::kI32, {32})}, "weight_g_idx: asks for inputs in an order"},
           {{codes, part("weight_scale", DType::kF8E4M3, {64, 2})}, "its dtype is F8_E4M3; with four bits of floats"},
           {{codes, powers, part("weight_global_scale", DType::kF32, {1})},
            "weight_global_scale: asks for a scale of scales (NVFP4)"},
           {{fp8, part("weight_scale", DType::kF32, {1, 1}), part("input_scale", DType::kF32, {1})},
            "input_scale: asks for static activations"},
           {{fp8, part("weight_scale", DType::kF32, {1, 1}), part("weight_scale_inv", DType::kF32, {1, 1})},
            "asks for two tensors of scales"},
           {{fp8, part("weight_scale", DType::kF32, {2, 1})}, "its shape is [2, 1]; by config.json it must be [1, 1]"},
           {{part("weight", DType::kBF16, {64, 32}), scale}, "has no place beside a weight of BF16"},
           {{part("weight", DType::kI8, {64, 32}), scale}, "its dtype is BF16; with four bits of floats"},
       }) {
    const std::string message =
        message_of(open(tiny_config(), [&](Specs& tensors) { replace(tensors, prefix + ".weight", test.with); }));
    EXPECT_THAT(message, HasSubstr(test.message)) << test.with[0].name << " and " << test.with.size() - 1 << " more";
  }
}

TEST_F(ModelFilesTest, NamesWhatIsWrongWithAnIndexersTensors) {
  const std::string config = tiny_config(R"({"architectures": ["GlmMoeDsaForCausalLM"], "index_n_heads": 2,
      "index_head_dim": 16, "index_topk": 4, "indexer_types": ["full", "shared"]})");
  const std::string prefix = "model.layers.0.self_attn.indexer.", other = "model.layers.1.self_attn.indexer.";
  const auto with = [&](auto change) { return message_of(open(config, change)); };
  EXPECT_EQ(with([](auto&) {}), "no error");
  EXPECT_THAT(with([&](auto& tensors) {
                replace(tensors, prefix + "k_norm.bias", {});
                replace(tensors, prefix + "weights_proj.weight", {});
              }),
              HasSubstr("2 tensors that config.json asks for are missing: " + prefix + "k_norm.bias, " + prefix +
                        "weights_proj.weight"));
  EXPECT_THAT(with([&](auto& tensors) {
                std::erase_if(tensors, [](const TensorSpec& tensor) { return tensor.name.contains("indexer"); });
              }),
              HasSubstr("5 tensors that config.json asks for are missing: " + prefix + "wq_b.weight"));
  EXPECT_THAT(with([&](auto& tensors) { tensors.push_back({other + "wk.weight", DType::kBF16, {16, 64}}); }),
              HasSubstr("1 tensors have no place in the model that config.json describes: " + other + "wk.weight"));
  EXPECT_THAT(with([&](auto& tensors) { spec(tensors, prefix + "wk.weight").shape = {64, 16}; }),
              HasSubstr("tensor " + prefix + "wk.weight: its shape is [64, 16]; by config.json it must be [16, 64]"));
  EXPECT_THAT(with([&](auto& tensors) { spec(tensors, prefix + "k_norm.weight").shape = {32}; }),
              HasSubstr("tensor " + prefix + "k_norm.weight: its shape is [32]; by config.json it must be [16]"));
  EXPECT_THAT(with([&](auto& tensors) {
                spec(tensors, prefix + "wq_b.weight").dtype = DType::kF8E4M3;
                tensors.push_back({prefix + "wq_b.weight_scale_inv", DType::kF32, {1, 2}});
              }),
              HasSubstr("wq_b.weight_scale_inv: its shape is [1, 2]; by config.json it must be [1, 1]"));
  // Of a model without one, the tensors are too many.
  EXPECT_THAT(
      message_of(open(tiny_config(),
                      [&](auto& tensors) { tensors.push_back({prefix + "wk.weight", DType::kBF16, {16, 64}}); })),
      HasSubstr("1 tensors have no place in the model that config.json describes: " + prefix + "wk.weight"));
}

TEST_F(ModelFilesTest, ReadsTheLanguageModelOfSeveralParts) {
  const boost::json::value inner = boost::json::parse(tiny_config());
  const std::string config = boost::json::serialize(boost::json::object{
      {"architectures", {"KimiK25ForConditionalGeneration"}}, {"model_type", "kimi_k25"}, {"text_config", inner}});
  const auto with = [&](const char* prefix, std::vector<TensorSpec> others) {
    return open(config, [&](std::vector<TensorSpec>& tensors) {
      for (TensorSpec& tensor : tensors) tensor.name.insert(0, prefix);
      tensors.insert(tensors.end(), others.begin(), others.end());
    });
  };
  const Result<ModelFiles> files =
      with("language_model.", {{"vision_tower.a", DType::kF32, {1}},
                               {"mm_projector.b", DType::kF32, {1}},
                               {"language_model.model.layers.0.self_attn.rotary_emb.inv_freq", DType::kF32, {4}}});
  ASSERT_TRUE(files) << message_of(files);
  EXPECT_TRUE(files->linear(kOProj, 64, 32));
  EXPECT_THAT(files->notes(),
              testing::ElementsAre(HasSubstr("2 tensors are of parts that are not served and are left out "
                                             "(vision_tower., mm_projector.)")));
  EXPECT_THAT(message_of(with("language_model.", {{"audio_tower.a", DType::kF32, {1}}})),
              HasSubstr("1 tensors have no place in the model that config.json describes: audio_tower.a"));
  EXPECT_THAT(message_of(with("language_model.", {{"lm_head.weight", DType::kF32, {1}}})),
              HasSubstr("tensor lm_head.weight is there with and without language_model."));
  EXPECT_THAT(message_of(with("llm.", {})), HasSubstr("are missing: language_model.model.embed_tokens.weight"));
}

TEST_F(ModelFilesTest, RefusesPowersOfTwoThatAreNone) {
  const Result<ModelFiles> zeros = open(tiny_config(), [](auto& tensors) {
    replace(tensors, std::string(kOProj) + ".weight",
            {{std::string(kOProj) + ".weight_packed", DType::kU8, {64, 16}},
             {std::string(kOProj) + ".weight_scale", DType::kU8, {64, 1}}});
  });
  ASSERT_TRUE(zeros) << message_of(zeros);
  const auto with = [&](char byte) {
    const std::span<const std::byte> data = zeros->checkpoint().find(std::string(kOProj) + ".weight_scale")->data;
    const auto offset = data.data() - zeros->checkpoint().files()[0].mapping().bytes().data();
    std::fstream file(folder_.path("model.safetensors"), std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(offset + 5);
    file.write(&byte, 1);
    file.close();
    return message_of(ModelFiles::open(folder_.path())->linear(kOProj, 64, 32));
  };
  EXPECT_EQ(with('\0'), "no error");
  EXPECT_EQ(with('\xfc'), "no error");
  EXPECT_THAT(with('\xfd'), HasSubstr("element 5 is 2^126, and what it scales is not finite"));
  EXPECT_THAT(with('\xff'), HasSubstr("holds a scale that is not finite: element [5, 0] is not finite"));
}

TEST_F(ModelFilesTest, RefusesAGroupSizeOtherThanTheConfigs) {
  const std::string config =
      tiny_config(R"({"quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 64}})");
  EXPECT_THAT(
      message_of(open(config, [&](auto& tensors) { replace(tensors, "lm_head.weight", awq("lm_head", 40, 64, 32)); })),
      HasSubstr("its groups hold 32 inputs; config.json says 64"));
}

TEST_F(ModelFilesTest, RefusesNumbersThatAreNotFinite) {
  const Result<ModelFiles> zeros =
      open(tiny_config(), [](auto& tensors) { replace(tensors, "lm_head.weight", awq("lm_head", 40, 64, 32)); });
  ASSERT_TRUE(zeros);
  // The same file with one bad number in the place of a zero.
  const auto poison = [&](std::string_view name, uint16_t bits) {
    const std::span<const std::byte> data = zeros->checkpoint().find(name)->data;
    const auto offset = data.data() - zeros->checkpoint().files()[0].mapping().bytes().data();
    std::fstream file(folder_.path("model.safetensors"), std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(offset + 2);
    file.write(reinterpret_cast<const char*>(&bits), 2);
  };
  poison("lm_head.scales", 0x7c00);
  poison("model.norm.weight", 0x7fc0);
  const Result<ModelFiles> files = ModelFiles::open(folder_.path());
  EXPECT_THAT(message_of(files->head()),
              HasSubstr("tensor lm_head.scales: holds a scale that is not finite: element [0, 1] is not finite"));
  EXPECT_THAT(message_of(files->vector("model.norm.weight", 64)),
              HasSubstr("tensor model.norm.weight: element 1 is not finite"));
}

TEST_F(ModelFilesTest, AcceptsMtpLayersWholeOrNotAtAll) {
  const std::string config = tiny_config(R"({"num_nextn_predict_layers": 1})");
  const std::vector<TensorSpec> mtp = plain_tensors(mtp_tensors(parse_model_config(config, "").value(), 2));
  const auto with = [&](auto keep) {
    return open(config, [&](std::vector<TensorSpec>& tensors) {
      std::ranges::copy_if(mtp, std::back_inserter(tensors), keep);
    });
  };
  EXPECT_EQ(with([](const TensorSpec&) { return true; })->num_mtp_layers(), 1);
  EXPECT_EQ(with([](const TensorSpec&) { return false; })->num_mtp_layers(), 0);
  // Copies of the model's own tables may be left out; what the layer computes with may not.
  EXPECT_EQ(
      with([](const TensorSpec& tensor) { return !tensor.name.ends_with("embed_tokens.weight"); })->num_mtp_layers(),
      1);
  // A layer with a gap, or of which config.json says nothing, is left out, and said once.
  const Result<ModelFiles> gap =
      with([](const TensorSpec& tensor) { return !tensor.name.ends_with("eh_proj.weight"); });
  ASSERT_TRUE(gap) << message_of(gap);
  EXPECT_EQ(gap->num_mtp_layers(), 0);
  EXPECT_THAT(gap->notes(), testing::ElementsAre(HasSubstr("left out: model.layers.2.eh_proj.weight is missing")));
  for (const char* number : {"0", "null"}) {
    const Result<ModelFiles> silent =
        open(tiny_config(fmt::format(R"({{"num_nextn_predict_layers": {}}})", number)),
             [&](std::vector<TensorSpec>& tensors) { tensors.insert(tensors.end(), mtp.begin(), mtp.end()); });
    ASSERT_TRUE(silent) << message_of(silent);
    EXPECT_EQ(silent->num_mtp_layers(), 0);
    EXPECT_THAT(
        silent->notes(),
        testing::ElementsAre(HasSubstr(fmt::format("the {} tensors of multi-token-prediction layers are left out: "
                                                   "config.json's num_nextn_predict_layers is 0",
                                                   mtp.size()))));
  }
  // A layer like the others is none of them: then config.json names too few.
  const Result<ModelFiles> more = open(tiny_config(), [&](std::vector<TensorSpec>& tensors) {
    tensors.push_back({"model.layers.2.input_layernorm.weight", DType::kBF16, {64}});
  });
  EXPECT_THAT(message_of(more), HasSubstr("have no place in the model"));
}

TEST(LinearSource, FindsEveryNumberThatIsNotFinite) {
  const auto check = []<class T, class Bits>(T, Bits, DType dtype, std::vector<Bits> patterns) {
    for (const Bits pattern : patterns) {
      std::vector<Bits> data(9'877, Bits{0});  // the last one may stand in no whole word
      data[9'876] = pattern;
      const auto found = first_not_finite(std::as_bytes(std::span(data)), dtype);
      const bool finite = std::isfinite(static_cast<float>(std::bit_cast<T>(pattern)));
      ASSERT_EQ(found, finite ? std::nullopt : std::optional<size_t>(9'876)) << dtype_name(dtype) << " " << +pattern;
    }
  };
  std::vector<uint16_t> all16(1 << 16);
  std::vector<uint8_t> all8(1 << 8);
  std::iota(all16.begin(), all16.end(), 0);
  std::iota(all8.begin(), all8.end(), 0);
  std::vector<uint16_t> some16;  // around every change of the exponent
  for (const uint16_t bits : all16)
    if ((bits & 0x3ff) <= 1 || (bits & 0x3ff) == 0x3ff || (bits & 0x7f) <= 1 || (bits & 0x7f) == 0x7f)
      some16.push_back(bits);
  check(bf16(), uint16_t{}, DType::kBF16, some16);
  check(fp16(), uint16_t{}, DType::kF16, some16);
  check(fp8e4m3(), uint8_t{}, DType::kF8E4M3, all8);
  check(
      float(), uint32_t{}, DType::kF32,
      {0u, 0x7f7fffffu, 0x7f800000u, 0x7f800001u, 0x7fc00000u, 0xff800000u, 0xffffffffu, 0xff7fffffu, 0x80000000u, 1u});
}

TEST(ModelFiles, OpensTheBuiltInModel) {
  const Result<ModelFiles> files = ModelFiles::open(std::string(CACHALOT_SOURCE_DIR) + "/models/nano");
  ASSERT_TRUE(files) << message_of(files);
  EXPECT_EQ(files->num_mtp_layers(), files->config().num_nextn_predict_layers);
}

// The layout of the real DeepSeek-R1: 61 layers and the MTP layer, fp8 with scales, in 163 shards of sparse files that
// take no disk space.
TEST(ModelFiles, OpensTheRealLayoutOfDeepSeekR1) {
  const TestFolder folder;
  const std::string config_text = read_file(test_data("configs/deepseek-r1.json")).value();
  ASSERT_TRUE(write_file(folder.path("config.json"), config_text));
  const ModelConfig config = parse_model_config(config_text, "").value();
  std::vector<ModelTensor> tensors = model_tensors(config);
  for (ModelTensor& tensor : mtp_tensors(config, 61)) tensors.push_back(std::move(tensor));

  constexpr int kNumShards = 163;
  std::vector<std::vector<TensorSpec>> shards(kNumShards);
  boost::json::object weight_map;
  size_t num_tensors = 0;
  for (size_t idx = 0; idx < tensors.size(); idx++) {
    const ModelTensor& tensor = tensors[idx];
    const size_t shard = idx * kNumShards / tensors.size();
    std::vector<TensorSpec> specs = plain_tensors({tensor});
    if (tensor.role == TensorRole::kLinear) {
      specs[0].dtype = DType::kF8E4M3;
      specs.push_back(
          {tensor.name + ".weight_scale_inv", DType::kF32, {(tensor.rows + 127) / 128, (tensor.cols + 127) / 128}});
    }
    for (TensorSpec& spec : specs) {
      weight_map[spec.name] = fmt::format("model-{:05}-of-{:06}.safetensors", shard + 1, kNumShards);
      shards[shard].push_back(std::move(spec));
      num_tensors++;
    }
  }
  for (int shard = 0; shard < kNumShards; shard++) {
    Result<SafetensorsWriter> writer = SafetensorsWriter::create(
        folder.path(fmt::format("model-{:05}-of-{:06}.safetensors", shard + 1, kNumShards)), shards[shard]);
    ASSERT_TRUE(writer && writer->finish());
  }
  ASSERT_TRUE(write_file(folder.path("model.safetensors.index.json"),
                         boost::json::serialize(boost::json::object{{"weight_map", weight_map}})));
  EXPECT_EQ(num_tensors, 91991u);  // what the real index lists

  const Result<ModelFiles> files = ModelFiles::open(folder.path());
  ASSERT_TRUE(files) << message_of(files);
  EXPECT_EQ(files->num_mtp_layers(), 1);
  EXPECT_GT(files->checkpoint().num_bytes(), 680'000'000'000u);
  const Result<WeightSource> expert = files->linear(layer_name(60, "mlp.experts.255.down_proj"), 7168, 2048);
  ASSERT_TRUE(expert) << message_of(expert);
  EXPECT_EQ(expert->format, SourceFormat::kFp8Block);
}

}  // namespace
}  // namespace cachalot
