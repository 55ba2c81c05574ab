// The built-in model answers as its trainer's own float64 forward does, token for token.
#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <fstream>
#include <sstream>

#include "engine_harness.h"

namespace cachalot::test {
namespace {

const std::string kNano = std::string(CACHALOT_SOURCE_DIR) + "/models/nano";

std::vector<TokenId> ids(const boost::json::value& array) {
  return boost::json::value_to<std::vector<TokenId>>(array);
}

class NanoGreedy : public testing::TestWithParam<DTypeOption> {};

TEST_P(NanoGreedy, AnswersWithTheGoldenIds) {
  std::ifstream file(kNano + "/greedy.json");
  std::stringstream text;
  text << file.rdbuf();
  const boost::json::value golden = boost::json::parse(text.str());
  EngineRun run({.model = kNano, .dtype = GetParam(), .threads = 2});
  if (HasFailure()) return;
  RequestId id = 0;
  for (const boost::json::value& question : golden.as_array()) {
    const auto answer = ids(question.at("greedy_token_ids"));
    Request request = greedy_request(id++, ids(question.at("prompt_token_ids")), static_cast<int>(answer.size()) + 10);
    request.sampling.stop_token_ids = run.engine().config().eos_token_ids;
    run.submit(std::move(request));
  }
  ASSERT_GE(id, 5u);
  run.finish();
  id = 0;
  for (const boost::json::value& question : golden.as_array()) {
    std::vector<TokenId> tokens;
    for (const SampledToken& token : run.answer(id).tokens) tokens.push_back(token.token);
    EXPECT_EQ(tokens, ids(question.at("greedy_token_ids"))) << question.at("question").as_string().c_str();
    EXPECT_EQ(run.answer(id++).finish, FinishReason::kStop);
  }
}

INSTANTIATE_TEST_SUITE_P(DTypes, NanoGreedy, testing::Values(DTypeOption::kFloat32, DTypeOption::kBFloat16),
                         [](const auto& info) { return info.param == DTypeOption::kFloat32 ? "float32" : "bfloat16"; });

}  // namespace
}  // namespace cachalot::test
