#include "text/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>

namespace cachalot {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

const std::string kNano = CACHALOT_SOURCE_DIR "/models/nano";

std::unique_ptr<Tokenizer> load(const std::string& folder) {
  Result<std::unique_ptr<Tokenizer>> tokenizer = Tokenizer::load(folder);
  if (!tokenizer) throw std::runtime_error(tokenizer.error().message);
  return std::move(*tokenizer);
}

TEST(Tokenizer, GivesTheIdsOfTheBuiltInModelsQuestion) {
  const auto tokenizer = load(kNano);
  const auto ids = tokenizer->encode(
      "<｜begin▁of▁sentence｜><｜User｜>Which one is larger? 3.8 or 3.11<｜Assistant｜><think>\n", false);
  ASSERT_TRUE(ids);
  EXPECT_THAT(*ids, ElementsAre(496, 499, 393, 271, 77, 68, 283, 365, 30, 220, 18, 13, 23, 300, 220, 18, 13, 16, 16,
                                500, 501, 198));
}

}  // namespace
}  // namespace cachalot
