// The golden checkpoints must give their logits in every number format, on every instruction level and layout; the
// tolerances are those of docs/numerics.md and are never loosened.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "golden_cases.h"
#include "model_harness.h"

namespace cachalot::test {
namespace {

// ||difference|| / ||logits - their mean|| of each token.
std::vector<double> relative_errors(const GoldenCase& golden, const std::vector<float>& logits) {
  const size_t vocab_size = golden.logits.size() / golden.tokens.size();
  std::vector<double> errors;
  for (size_t token = 0; token < golden.tokens.size(); token++) {
    const float *want = golden.logits.data() + token * vocab_size, *have = logits.data() + token * vocab_size;
    double mean = 0, difference = 0, norm = 0;
    for (size_t idx = 0; idx < vocab_size; idx++) mean += want[idx] / static_cast<double>(vocab_size);
    for (size_t idx = 0; idx < vocab_size; idx++) {
      difference += std::pow(static_cast<double>(have[idx]) - want[idx], 2);
      norm += std::pow(want[idx] - mean, 2);
    }
    errors.push_back(std::sqrt(difference / norm));
  }
  return errors;
}

double quantile(std::vector<double> values, double part) {
  std::ranges::sort(values);
  return values[static_cast<size_t>(part * static_cast<double>(values.size() - 1) + 0.5)];
}

std::string level_name(IsaLevel isa) {
  return std::string(isa_name(isa));
}

// ---- exact: float32 ----

struct ExactParam {
  std::string folder;
  IsaLevel isa;
  Layout layout;
  int generated_from;
  // Its test's name says the rest.
  friend void PrintTo(const ExactParam& param, std::ostream* out) { *out << param.folder; }
};

std::string exact_name(const testing::TestParamInfo<ExactParam>& info) {
  const ExactParam& param = info.param;
  std::string name = param.folder + "_" + level_name(param.isa) + "_dp" + std::to_string(param.layout.dp_size) + "_tp" +
                     std::to_string(param.layout.tp_size);
  if (!param.layout.expert_parallel) name += "_noep";
  if (param.generated_from >= 0) name += "_generated" + std::to_string(param.generated_from);
  std::ranges::replace(name, '-', '_');
  return name;
}

class GoldenFloat32 : public testing::TestWithParam<ExactParam> {};

TEST_P(GoldenFloat32, LogitsAreWithinAThousandth) {
  const ExactParam& param = GetParam();
  ModelRun run(
      golden_folder(param.folder),
      {.compute_dtype = DType::kF32, .isa = param.isa, .layout = param.layout, .generated_from = param.generated_from});
  if (HasFailure()) return;
  for (const GoldenCase& golden : load_golden_cases(param.folder)) {
    if (param.generated_from >= static_cast<int>(golden.tokens.size())) continue;
    const RunResult result = run.logits(golden.tokens);
    EXPECT_LE(worst_difference(result.logits, golden), 1e-3) << golden.tokens.size() << " tokens";
    EXPECT_EQ(result.chosen_positions, golden.selected) << golden.tokens.size() << " tokens";
  }
}

std::vector<ExactParam> exact_params() {
  std::vector<ExactParam> params;
  for (const GoldenFolder& golden : kGoldenFolders) {
    const std::string& folder = golden.name;
    for (const IsaLevel isa : available_levels()) {
      params.push_back({folder, isa, {}, -1});
      params.push_back({folder, isa, {}, 3});
    }
    const IsaLevel best = detect_isa();
    const auto add = [&](const Layout& layout, int generated_from = -1) {
      params.push_back({folder, best, layout, generated_from});
    };
    for (const int tp_size : {2, 4, 8}) {
      add({.dp_size = 1, .tp_size = tp_size});
      add({.dp_size = 1, .tp_size = tp_size, .expert_parallel = false});
    }
    add({.dp_size = 1, .tp_size = 4}, 3);
    const int widest = golden.num_experts >= 16 ? 8 : 4;
    for (const Layout layout :
         {Layout{2, 2}, Layout{4, 1}, Layout{golden.num_experts / widest, widest}, Layout{golden.num_experts, 1},
          Layout{3, 1}, Layout{5, 1}, Layout{7, 1}, Layout{3, 2}, Layout{golden.num_experts + 1, 1}})
      add(layout);
  }
  for (const std::string& folder : kSparseGoldenNames) {
    for (const IsaLevel isa : available_levels()) {
      params.push_back({folder, isa, {}, -1});
      params.push_back({folder, isa, {}, 3});
      params.push_back({folder, isa, {}, 30});
    }
    const IsaLevel best = detect_isa();
    for (const int tp_size : {2, 4, 8}) {
      params.push_back({folder, best, {.dp_size = 1, .tp_size = tp_size}, -1});
      params.push_back({folder, best, {.dp_size = 1, .tp_size = tp_size}, 3});
      params.push_back({folder, best, {.dp_size = 1, .tp_size = tp_size, .expert_parallel = false}, -1});
    }
    for (const Layout layout : {Layout{2, 2}, Layout{4, 1}, Layout{2, 4}, Layout{8, 1}})
      params.push_back({folder, best, layout, -1});
  }
  return params;
}

INSTANTIATE_TEST_SUITE_P(All, GoldenFloat32, testing::ValuesIn(exact_params()), exact_name);

// ---- rounded: bfloat16, int8 activations ----

struct RoundedParam {
  std::string folder;
  IsaLevel isa;
  ActivationDTypeOption activation;
  double median, ninetieth;
  Layout layout;
  int generated_from;
  // Its test's name says the rest.
  friend void PrintTo(const RoundedParam& param, std::ostream* out) { *out << param.folder; }
};

std::string rounded_name(const testing::TestParamInfo<RoundedParam>& info) {
  const RoundedParam& param = info.param;
  const char* activation = param.activation == ActivationDTypeOption::kAuto   ? "auto"
                           : param.activation == ActivationDTypeOption::kInt8 ? "int8"
                                                                              : "bf16";
  std::string name = param.folder + "_" + activation + "_" + level_name(param.isa) + "_dp" +
                     std::to_string(param.layout.dp_size) + "_tp" + std::to_string(param.layout.tp_size);
  if (param.generated_from >= 0) name += "_generated";
  std::ranges::replace(name, '-', '_');
  return name;
}

class GoldenRounded : public testing::TestWithParam<RoundedParam> {};

TEST_P(GoldenRounded, ErrorsOfTheTokensStayWithinTheTolerances) {
  const RoundedParam& param = GetParam();
  const RunOptions options{.compute_dtype = DType::kBF16,
                           .activation_dtype = param.activation,
                           .isa = param.isa,
                           .layout = param.layout,
                           .generated_from = param.generated_from};
  ModelRun run(golden_folder(param.folder), options);
  ModelRun exact(golden_folder(param.folder), {.compute_dtype = DType::kF32, .isa = detect_isa()});
  if (HasFailure()) return;
  std::vector<double> errors;
  for (const GoldenCase& golden : load_golden_cases(param.folder)) {
    if (param.generated_from >= static_cast<int>(golden.tokens.size())) continue;
    const auto free = relative_errors(golden, run.logits(golden.tokens).logits);
    errors.insert(errors.end(), free.begin(), free.end());
    // With the exact run's choice of experts, no token is far off.
    const auto forced =
        relative_errors(golden, run.logits(golden.tokens, exact.logits(golden.tokens).chosen_expert_ids).logits);
    EXPECT_LT(*std::ranges::max_element(forced), 0.15) << golden.tokens.size() << " tokens, forced routing";
  }
  EXPECT_LE(quantile(errors, 0.5), param.median);
  EXPECT_LE(quantile(errors, 0.9), param.ninetieth);
  RecordProperty("median", std::to_string(quantile(errors, 0.5)));
  RecordProperty("ninetieth", std::to_string(quantile(errors, 0.9)));
}

std::vector<RoundedParam> rounded_params() {
  std::vector<RoundedParam> params;
  for (const GoldenFolder& golden : kGoldenFolders) {
    const std::string& folder = golden.name;
    const auto add = [&](ActivationDTypeOption activation, double median, double ninetieth) {
      for (const IsaLevel isa : available_levels())
        params.push_back({folder, isa, activation, median, ninetieth, {}, -1});
      params.push_back({folder, detect_isa(), activation, median, ninetieth, {}, 3});
      const int dp_size = golden.num_experts % 8 == 0 ? 2 : 3;
      params.push_back({folder, detect_isa(), activation, median, ninetieth, {dp_size, 4}, -1});
    };
    add(ActivationDTypeOption::kBf16, golden.bf16_median, golden.bf16_ninetieth);
    add(ActivationDTypeOption::kInt8, golden.int8_median, golden.int8_ninetieth);
  }
  return params;
}

INSTANTIATE_TEST_SUITE_P(All, GoldenRounded, testing::ValuesIn(rounded_params()), rounded_name);

// With an indexer, a position near a tie costs a part of the attention: only runs with the exact run's choice of
// experts and positions have a bound, for every token.
class GoldenSparseRounded : public testing::TestWithParam<RoundedParam> {};

TEST_P(GoldenSparseRounded, NoTokenIsFarOffWithTheExactChoices) {
  const RoundedParam& param = GetParam();
  ModelRun run(golden_folder(param.folder), {.compute_dtype = DType::kBF16,
                                             .activation_dtype = param.activation,
                                             .isa = param.isa,
                                             .layout = param.layout,
                                             .generated_from = param.generated_from});
  ModelRun exact(golden_folder(param.folder), {.compute_dtype = DType::kF32, .isa = detect_isa()});
  if (HasFailure()) return;
  double worst = 0;
  for (const GoldenCase& golden : load_golden_cases(param.folder)) {
    if (param.generated_from >= static_cast<int>(golden.tokens.size())) continue;
    const RunResult choice = exact.logits(golden.tokens);
    const RunResult forced = run.logits(golden.tokens, choice.chosen_expert_ids, choice.chosen_positions);
    EXPECT_EQ(forced.chosen_positions, choice.chosen_positions);
    worst = std::max(worst, std::ranges::max(relative_errors(golden, forced.logits)));
  }
  EXPECT_LE(worst, param.activation == ActivationDTypeOption::kInt8 ? 0.15 : 0.06);
  RecordProperty("worst", std::to_string(worst));
}

std::vector<RoundedParam> sparse_rounded_params() {
  std::vector<RoundedParam> params;
  for (const std::string& folder : kSparseGoldenNames)
    for (const ActivationDTypeOption activation : {ActivationDTypeOption::kBf16, ActivationDTypeOption::kInt8}) {
      for (const IsaLevel isa : available_levels()) params.push_back({folder, isa, activation, 0, 0, {}, -1});
      params.push_back({folder, detect_isa(), activation, 0, 0, {}, 3});
      params.push_back({folder, detect_isa(), activation, 0, 0, {2, 4}, -1});
    }
  return params;
}

INSTANTIATE_TEST_SUITE_P(All, GoldenSparseRounded, testing::ValuesIn(sparse_rounded_params()), rounded_name);

}  // namespace
}  // namespace cachalot::test
