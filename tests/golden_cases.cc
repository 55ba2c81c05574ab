#include "golden_cases.h"

#include <fmt/format.h>
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

namespace {

using Tensors = std::map<std::string, std::vector<std::byte>>;

Tensors read_tensors(const std::string& path) {
  auto file = SafetensorsFile::open(path);
  if (!file) {
    ADD_FAILURE() << file.error().message;
    return {};
  }
  Tensors tensors;
  for (const TensorRef& tensor : file->tensors()) tensors[tensor.spec.name] = {tensor.data.begin(), tensor.data.end()};
  return tensors;
}

template <class T>
std::vector<T> numbers(const std::vector<std::byte>& bytes) {
  const auto* values = reinterpret_cast<const T*>(bytes.data());
  return {values, values + bytes.size() / sizeof(T)};
}

}  // namespace

std::vector<GoldenCase> load_golden_cases(const std::string& name) {
  Tensors tensors = read_tensors(golden_folder(name) + "/cases.safetensors");
  if (std::ranges::find(kSparseGoldenNames, name) != kSparseGoldenNames.end())
    tensors.merge(read_tensors(golden_folder(name) + "/selected.safetensors"));
  std::vector<GoldenCase> cases;
  for (int idx = 0; tensors.contains(fmt::format("tokens.{}", idx)); idx++)
    cases.push_back({.tokens = numbers<TokenId>(tensors.at(fmt::format("tokens.{}", idx))),
                     .logits = numbers<float>(tensors.at(fmt::format("logits.{}", idx))),
                     .selected = numbers<int32_t>(tensors[fmt::format("selected.{}", idx)])});
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
