// The built-in model answers as its trainer's own float32 forward does, token for token, from the text of a question
// on.
#include <gtest/gtest.h>

#include <boost/json.hpp>

#include "base/file.h"
#include "engine_harness.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

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

// A question as /v1/completions takes it, or in the chat format.
std::vector<TokenId> prompt_ids(const std::string& folder, const std::string& question, bool bare) {
  const auto tokenizer = Tokenizer::load(folder).value();
  if (bare) return tokenizer->encode(question, true).value();
  const json::object context{{"messages", {{{"role", "user"}, {"content", question}}}},
                             {"add_generation_prompt", true}};
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
    EXPECT_EQ(prompt_ids(kNano, text, question.at("bare").as_bool()), ids(question.at("prompt_token_ids"))) << text;
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
  Request request = greedy_request(1, prompt_ids(GetParam(), "Which one is larger? 3.8 or 3.11", true), 200);
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

}  // namespace
}  // namespace cachalot::test
