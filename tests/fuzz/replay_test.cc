// The seeds, and some mutations of each, through every target: what ./test.sh has of the fuzzing by default. The same
// inputs each time.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <random>

#include "base/file.h"
#include "base/log.h"
#include "targets.h"

namespace cachalot::fuzz {
namespace {

std::vector<std::string> seeds_of(const Target& target) {
  std::vector<std::filesystem::path> paths;
  const std::string folder = std::string(CACHALOT_SOURCE_DIR "/tests/fuzz/seeds/") + std::string(target.name);
  for (const auto& entry : std::filesystem::directory_iterator(folder)) paths.push_back(entry.path());
  std::sort(paths.begin(), paths.end());
  std::vector<std::string> seeds;
  for (const auto& path : paths) seeds.push_back(read_file(path).value());
  return seeds;
}

// Changed bytes, cuts, repeats, foreign parts, and the numbers at which readers fail.
std::string mutate(std::string text, const std::vector<std::string>& seeds, std::mt19937& random) {
  static constexpr std::string_view kParts[] = {
      "-1",  "0", "1e400", "2147483647", "4294967296", "18446744073709551616", "null", "[]", "{}", "\"\"", "\xff",
      "NaN", ":", "\n",    "\\u0000",    "%00"};
  const auto below = [&](size_t bound) { return bound == 0 ? 0 : random() % bound; };
  for (size_t round = 1 + below(3); round > 0; round--) {
    const size_t at = below(text.size() + 1), length = below(std::min<size_t>(text.size() - at, 24) + 1);
    switch (below(6)) {
      case 0:
        if (at < text.size()) text[at] = static_cast<char>(random());
        break;
      case 1:
        text.erase(at, length);
        break;
      case 2:
        text.insert(at, text.substr(at, length));
        break;
      case 3:
        text.replace(at, length, kParts[below(std::size(kParts))]);
        break;
      case 4:
        text.resize(at);
        break;
      default: {
        const std::string& other = seeds[below(seeds.size())];
        const size_t from = below(other.size() + 1);
        text.insert(at, other.substr(from, below(64)));
      }
    }
  }
  return text;
}

class FuzzSeeds : public testing::TestWithParam<Target> {};

TEST_P(FuzzSeeds, AndTheirMutationsEndNothing) {
  log::init("off", "");
  const Target& target = GetParam();
  const std::vector<std::string> seeds = seeds_of(target);
  ASSERT_FALSE(seeds.empty());
  std::mt19937 random(20261130);
  auto slowest = std::chrono::nanoseconds::zero();
  for (const std::string& seed : seeds) {
    for (int i = 0; i <= target.num_mutations; i++) {
      const std::string input = i == 0 ? seed : mutate(seed, seeds, random);
      const auto before = std::chrono::steady_clock::now();
      target.run(input.substr(0, target.max_bytes));
      slowest = std::max(slowest, std::chrono::steady_clock::now() - before);
    }
  }
  EXPECT_LT(slowest, std::chrono::seconds(20)) << "an input hung";
}

INSTANTIATE_TEST_SUITE_P(All, FuzzSeeds, testing::ValuesIn(targets().begin(), targets().end()),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace cachalot::fuzz
