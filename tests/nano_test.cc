// The built-in model answers as its trainer's own float32 forward does, token for token, from the text of a question
// on.
#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <filesystem>
#include <fstream>

#include "base/file.h"
#include "base/folder_test_util.h"
#include "engine_harness.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"
#include "weights/model_files.h"

namespace cachalot::test {
namespace {

namespace json = boost::json;

const std::string kNano = std::string(CACHALOT_SOURCE_DIR) + "/models/nano";
const std::string kNanoAwq = std::string(CACHALOT_SOURCE_DIR) + "/models/nano-awq";

json::array golden() {
  return json::parse(read_file(kNano + "/greedy.json").value()).as_array();
}

std::vector<TokenId> ids(const json::value& array) {
  return json::value_to<std::vector<TokenId>>(array);
}

// A question as /v1/completions takes it.
std::vector<TokenId> bare_prompt_ids(const std::string& folder, const std::string& question) {
  return Tokenizer::load(folder).value()->encode(question, true).value();
}

// In the chat format. `context`: what the template is given, for more than a question alone.
std::vector<TokenId> chat_prompt_ids(const std::string& folder, const std::string& question,
                                     const json::value* given_context) {
  const auto tokenizer = Tokenizer::load(folder).value();
  json::object context = given_context ? given_context->as_object()
                                       : json::object{{"messages", {{{"role", "user"}, {"content", question}}}}};
  context["add_generation_prompt"] = true;
  const auto chat_template = ChatTemplate::load(folder).value();
  return tokenizer->encode(chat_template->render(json::serialize(context)).value(), false).value();
}

std::vector<TokenId> token_ids(const Answer& answer) {
  std::vector<TokenId> tokens;
  for (const SampledToken& token : answer.tokens) tokens.push_back(token.token);
  return tokens;
}

TEST(NanoPrompts, HaveTheTrainersIds) {
  for (const json::value& question : golden()) {
    const std::string text = json::value_to<std::string>(question.at("question"));
    const json::value* context = question.as_object().if_contains("context");
    EXPECT_EQ(question.at("bare").as_bool() ? bare_prompt_ids(kNano, text) : chat_prompt_ids(kNano, text, context),
              ids(question.at("prompt_token_ids")))
        << text;
  }
}

class NanoGreedy : public testing::TestWithParam<DTypeOption> {};

TEST_P(NanoGreedy, AnswersWithTheGoldenIds) {
  EngineRun run({.model = kNano, .dtype = GetParam(), .threads = 2});
  if (HasFailure()) return;
  const json::array questions = golden();
  ASSERT_GE(questions.size(), 20u);
  for (size_t idx = 0; idx < questions.size(); idx++) {
    const int num_tokens = static_cast<int>(questions[idx].at("greedy_token_ids").as_array().size());
    Request request = greedy_request(idx, ids(questions[idx].at("prompt_token_ids")), num_tokens + 10);
    request.sampling.stop_token_ids = run.engine().config().eos_token_ids;
    run.submit(std::move(request));
  }
  run.finish();
  for (size_t idx = 0; idx < questions.size(); idx++) {
    EXPECT_EQ(token_ids(run.answer(idx)), ids(questions[idx].at("greedy_token_ids")))
        << questions[idx].at("question").as_string().c_str();
    EXPECT_EQ(run.answer(idx).finish, FinishReason::kStop);
  }
}

INSTANTIATE_TEST_SUITE_P(DTypes, NanoGreedy, testing::Values(DTypeOption::kFloat32, DTypeOption::kBFloat16),
                         [](const auto& info) { return info.param == DTypeOption::kFloat32 ? "float32" : "bfloat16"; });

class NanoFolder : public testing::TestWithParam<std::string> {};

TEST_P(NanoFolder, AnswersABareQuestionWithoutAChatTemplate) {
  EngineRun run({.model = GetParam(), .threads = 2});
  if (HasFailure()) return;
  Request request = greedy_request(1, bare_prompt_ids(GetParam(), "Which one is larger? 3.8 or 3.11"), 200);
  request.sampling.stop_token_ids = run.engine().config().eos_token_ids;
  run.submit(std::move(request));
  run.finish();
  const std::string text = Tokenizer::load(GetParam()).value()->decode(token_ids(run.answer(1)), true);
  EXPECT_TRUE(text.starts_with("\n<think>\n")) << text;
  EXPECT_TRUE(text.ends_with("</think>\n\n3.8 is larger than 3.11.")) << text;
  EXPECT_EQ(run.answer(1).finish, FinishReason::kStop);
}

INSTANTIATE_TEST_SUITE_P(Weights, NanoFolder, testing::Values(kNano, kNanoAwq),
                         [](const auto& info) { return info.param == kNano ? "bf16" : "int4"; });

// One number of a weight becomes NaN: whichever it is, the model does not start, and the error says where it is.
TEST(NanoWeights, ANumberThatIsNotFiniteEndsTheStart) {
  const TestFolder folder;
  const EngineOptions options{.model = folder.path(), .num_gpu_blocks_override = 2, .threads = 2};
  for (const char* name : {"config.json", "model.safetensors"})
    std::filesystem::copy_file(kNano + "/" + name, folder.path(name));
  for (const auto& [name, where] : std::vector<std::pair<std::string, std::string>>{
           {"model.embed_tokens.weight", "element [511, 127]"},
           {"model.layers.0.input_layernorm.weight", "element 127"},
           {"model.layers.0.self_attn.q_a_proj.weight", "element [63, 127]"},
           {"model.layers.1.self_attn.kv_b_proj.weight", "element [511, 63]"},
           {"model.layers.0.mlp.up_proj.weight", "element [255, 127]"},
           {"model.layers.2.mlp.gate.weight", "element [31, 127]"},
           {"model.layers.2.mlp.gate.e_score_correction_bias", "element 31"},
           {"model.layers.3.mlp.experts.31.gate_proj.weight", "element [63, 127]"},
           {"model.layers.3.mlp.experts.31.down_proj.weight", "element [127, 63]"},
           {"model.layers.3.mlp.shared_experts.up_proj.weight", "element [63, 127]"},
           {"model.norm.weight", "element 127"},
           {"lm_head.weight", "element [511, 127]"}}) {
    const ModelFiles files = ModelFiles::open(kNano).value();
    const TensorRef* tensor = files.checkpoint().find(name);
    ASSERT_TRUE(tensor) << name;
    const auto offset =
        tensor->data.data() + tensor->data.size() - files.checkpoint().files()[0].mapping().bytes().data() - 2;
    const uint16_t nan = 0x7fc0;  // of bf16, and the upper half of a float32's
    std::fstream file(folder.path("model.safetensors"), std::ios::in | std::ios::out | std::ios::binary);
    uint16_t original = 0;
    file.seekg(offset).read(reinterpret_cast<char*>(&original), 2);
    file.seekp(offset).write(reinterpret_cast<const char*>(&nan), 2).flush();
    const auto engine = RankEngine::create(options, {});
    ASSERT_FALSE(engine) << name;
    EXPECT_EQ(engine.error().message,
              fmt::format("{}/model.safetensors: tensor {}: {} is not finite", folder.path(), name, where));
    file.seekp(offset).write(reinterpret_cast<const char*>(&original), 2).flush();
  }
  EXPECT_TRUE(RankEngine::create(options, {}));
}

}  // namespace
}  // namespace cachalot::test
