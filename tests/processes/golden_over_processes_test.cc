// The golden checkpoints over ranks that are processes, as `cachalot logits` starts them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>

#include "base/file.h"
#include "golden_cases.h"
#include "placement/expert_placement.h"
#include "processes/logits_run.h"
#include "processes/program.h"

namespace cachalot::test {
namespace {

struct Param {
  std::string name;
  Layout layout;
  int generated_from = -1;
  friend void PrintTo(const Param& param, std::ostream* out) { *out << param.name; }
};

std::string param_name(const testing::TestParamInfo<Param>& info) {
  const auto& [folder, layout, generated_from] = info.param;
  std::string name = folder + "_dp" + std::to_string(layout.dp_size) + "_tp" + std::to_string(layout.tp_size) +
                     (layout.expert_parallel ? "_ep" + std::to_string(layout.num_ranks()) : "_noep");
  if (generated_from >= 0) name += "_generated";
  std::ranges::replace(name, '-', '_');
  return name;
}

// The prompt's test takes the case of 65 tokens, the answer's that of 7: each of its tokens is a step of its own.
const GoldenCase& pick(const std::vector<GoldenCase>& cases, int generated_from) {
  return cases[generated_from < 0 ? 4 : 2];
}

class GoldenOverProcesses : public testing::TestWithParam<Param> {};

TEST_P(GoldenOverProcesses, LogitsAreWithinAThousandth) {
  const auto& [name, layout, generated_from] = GetParam();
  const std::vector<GoldenCase> cases = load_golden_cases(name);
  ASSERT_EQ(cases.size(), 6u);
  const GoldenCase& golden = pick(cases, generated_from);
  const LogitsAnswer answer = run_logits({.model = golden_folder(name),
                                          .layout = layout,
                                          .tokens = golden.tokens,
                                          .generated_from = generated_from,
                                          .replica = layout.dp_size / 2});
  EXPECT_LE(worst_difference(answer.logits, golden), 1e-3);
  EXPECT_EQ(std::ssize(answer.ranks), layout.expert_parallel ? layout.num_ranks() : layout.tp_size);
}

std::vector<Param> params() {
  std::vector<Param> params;
  for (const std::string& name : golden_names(32)) {
    params.push_back({name, {1, 1}});
    for (const int tp_size : {2, 4, 8}) {
      params.push_back({name, {1, tp_size}});
      params.push_back({name, {1, tp_size}, 3});
      params.push_back({name, {1, tp_size, false}});
    }
    params.push_back({name, {2, 2, false}});
    for (const Layout layout : {Layout{2, 1}, Layout{2, 2}, Layout{8, 1}, Layout{4, 4}, Layout{8, 4}, Layout{4, 8},
                                Layout{3, 1}, Layout{5, 2}, Layout{7, 1}})
      params.push_back({name, layout});
    params.push_back({name, {2, 2}, 3});
  }
  for (const std::string& name : kSparseGoldenNames) {
    for (const Layout layout : {Layout{1, 1}, Layout{1, 4}, Layout{1, 2, false}, Layout{2, 2}, Layout{8, 1}})
      params.push_back({name, layout});
    params.push_back({name, {1, 8}, 3});
  }
  params.push_back({"r1-fp8", {32, 1}});
  params.push_back({"r1-awq", {8, 4}, 3});
  return params;
}

INSTANTIATE_TEST_SUITE_P(Processes, GoldenOverProcesses, testing::ValuesIn(params()), param_name);

// Data and expert parallelism change no bit, in any weight format and in the compute type that one serves with.
class BitsOverProcesses : public testing::TestWithParam<std::string> {};

TEST_P(BitsOverProcesses, OfDataAndExpertParallelRanksAreThoseOfOneRank) {
  const std::vector<GoldenCase> cases = load_golden_cases(GetParam());
  ASSERT_EQ(cases.size(), 6u);
  LogitsQuestion question{.model = golden_folder(GetParam()),
                          .layout = {},
                          .tokens = {cases[3].tokens.begin(), cases[3].tokens.begin() + 40},
                          .generated_from = 36,
                          .dtype = "bfloat16"};
  const LogitsAnswer alone = run_logits(question);
  ASSERT_FALSE(alone.logits.empty());
  for (const int dp_size : {2, 3, 4, 7, 16}) {
    question.layout = {.dp_size = dp_size, .tp_size = 1};
    question.replica = dp_size - 1;
    EXPECT_TRUE(same_bits(run_logits(question).logits, alone.logits)) << "DP " << dp_size;
  }
}

TEST(EplbProgram, PlacesExpertsByALoadAndRanksServeByItWithTheSameBits) {
  const ScratchFolder folder;
  const std::string load = folder / "load.json", placement = folder / "placement.json",
                    model = golden_folder("r1-bf16");
  const ModelConfig config = load_model_config(model).value();
  std::string layers;
  for (int layer = 0; layer < placement_shape(config, 1).num_layers; layer++) {
    layers += layer > 0 ? ",[" : "[";
    for (int expert = 0; expert < config.num_experts; expert++)
      layers += fmt::format("{}{}", expert > 0 ? "," : "", expert == layer ? 100 : expert + 1);
    layers += "]";
  }
  ASSERT_TRUE(write_file(load, R"({"layers": [)" + layers + "]}"));
  Program eplb({"eplb", "--load", load, load, "--ranks", "3", "--num-redundant-experts", "4", "--spare-slots", "1",
                "--model", model, "-o", placement});
  ASSERT_EQ(eplb.wait(std::chrono::seconds(30)), 0) << eplb.output();
  EXPECT_THAT(eplb.output(), testing::HasSubstr("rows of the busiest rank over the mean"));

  const std::vector<GoldenCase> cases = load_golden_cases("r1-bf16");
  LogitsQuestion question{.model = model, .layout = {}, .tokens = cases[3].tokens, .dtype = "bfloat16"};
  const LogitsAnswer alone = run_logits(question);
  question.layout = {.dp_size = 3, .tp_size = 1};
  for (const char* transports : {"auto", "ucx"}) {
    question.more_flags = {"--expert-placement", placement, "--transports", transports};
    const LogitsAnswer placed = run_logits(question);
    EXPECT_TRUE(same_bits(placed.logits, alone.logits)) << transports;
    const ExpertPlacement wanted = ExpertPlacement::parse(read_file(placement).value(), placement).value();
    ASSERT_EQ(placed.ranks.size(), 3u);
    for (const boost::json::value& rank : placed.ranks)
      EXPECT_EQ(rank.at("placement_hash").to_number<int64_t>(), wanted.hash());
  }
  // A slot costs as much as the others.
  question.more_flags = {"--eplb-config", R"({"num_redundant_experts": 3})"};
  const LogitsAnswer redundant = run_logits(question);
  EXPECT_TRUE(same_bits(redundant.logits, alone.logits));
  question.more_flags = {};
  const LogitsAnswer even = run_logits(question);
  const auto weights = [](const LogitsAnswer& answer) {
    int64_t bytes = 0;
    for (const boost::json::value& rank : answer.ranks) bytes += rank.at("weight_bytes").to_number<int64_t>();
    return bytes;
  };
  EXPECT_GT(weights(redundant), weights(even));
}

INSTANTIATE_TEST_SUITE_P(Processes, BitsOverProcesses, testing::ValuesIn(golden_names(16)), [](const auto& info) {
  std::string name = info.param;
  std::ranges::replace(name, '-', '_');
  return name;
});

}  // namespace
}  // namespace cachalot::test
