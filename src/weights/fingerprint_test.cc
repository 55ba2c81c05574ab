#include "weights/fingerprint.h"

#include <gtest/gtest.h>

#include <fstream>

#include "weights/files_test_util.h"

namespace cachalot {
namespace {

// A byte between the sampled pages: samples alone do not see it.
TEST(Fingerprint, OfTheWholeSeesWhatSamplesMiss) {
  const TestFolder folder;
  write_zeros(folder.path(), {{"weight", DType::kF32, {1024, 1024}}});
  ASSERT_TRUE(write_file(folder.path("config.json"), "{}"));
  const auto fingerprint = [&](FingerprintDepth depth) {
    return fingerprint_of(Checkpoint::open(folder.path()).value(), depth).value();
  };
  const std::string sampled = fingerprint(FingerprintDepth::kSampled), whole = fingerprint(FingerprintDepth::kWhole);
  EXPECT_NE(sampled, whole);
  EXPECT_EQ(fingerprint(FingerprintDepth::kWhole), whole);
  std::fstream file(folder.path("model.safetensors"), std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(100'000, std::ios::beg);
  file.put('x').flush();
  EXPECT_EQ(fingerprint(FingerprintDepth::kSampled), sampled);
  EXPECT_NE(fingerprint(FingerprintDepth::kWhole), whole);
}

}  // namespace
}  // namespace cachalot
