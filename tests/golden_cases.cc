#include "golden_cases.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "weights/safetensors.h"

namespace cachalot::test {

std::vector<std::string> golden_names(int num_ranks) {
  std::vector<std::string> names;
  for (const GoldenFolder& folder : kGoldenFolders)
    if (folder.num_experts % num_ranks == 0) names.push_back(folder.name);
  return names;
}

std::string golden_folder(const std::string& name) {
  return std::string(CACHALOT_SOURCE_DIR) + "/tests/data/golden/" + name;
}

std::vector<GoldenCase> load_golden_cases(const std::string& name) {
  auto file = SafetensorsFile::open(golden_folder(name) + "/cases.safetensors");
  if (!file) {
    ADD_FAILURE() << file.error().message;
    return {};
  }
  std::map<std::string, const TensorRef*> tensors;
  for (const TensorRef& tensor : file->tensors()) tensors[tensor.spec.name] = &tensor;
  std::vector<GoldenCase> cases;
  for (int idx = 0; tensors.contains("tokens." + std::to_string(idx)); idx++) {
    const TensorRef &tokens = *tensors.at("tokens." + std::to_string(idx)),
                    &logits = *tensors.at("logits." + std::to_string(idx));
    const auto* ids = reinterpret_cast<const TokenId*>(tokens.data.data());
    const auto* values = reinterpret_cast<const float*>(logits.data.data());
    cases.push_back(
        {{ids, ids + tokens.data.size() / sizeof(TokenId)}, {values, values + logits.data.size() / sizeof(float)}});
  }
  EXPECT_EQ(cases.size(), 6u);
  return cases;
}

double worst_difference(const std::vector<float>& logits, const GoldenCase& golden) {
  if (logits.size() != golden.logits.size()) return std::numeric_limits<double>::infinity();
  double worst = 0;
  for (size_t idx = 0; idx < logits.size(); idx++) {
    const double difference = std::fabs(static_cast<double>(logits[idx]) - golden.logits[idx]);
    if (std::isnan(difference)) return std::numeric_limits<double>::infinity();
    worst = std::max(worst, difference);
  }
  return worst;
}

}  // namespace cachalot::test
