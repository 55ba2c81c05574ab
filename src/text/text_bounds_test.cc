#include "text/text_bounds.h"

#include <gtest/gtest.h>

#include <random>

#include "text/huggingface_test_util.h"

namespace cachalot {
namespace {

struct Texts {
  explicit Texts(const std::string& folder) : tokenizer(Tokenizer::load(folder).value()), bounds(*tokenizer) {}
  std::unique_ptr<Tokenizer> tokenizer;
  TextBounds bounds;
};

TEST(TextBounds, NoTextHasFewerTokensThanTheBound) {
  for (const std::string& folder : {kDeepseekFolder, kNanoFolder}) {
    const Texts texts(folder);
    for (const auto& row : read_fixture("strings")) {
      const std::string text = text_of(row, "text");
      EXPECT_LE(texts.bounds.least_num_tokens(text),
                static_cast<int64_t>(texts.tokenizer->encode(text, false)->size()));
    }
    EXPECT_EQ(texts.bounds.least_num_tokens(""), 0);
  }
}

TEST(TextBounds, HopelesslyLongTextsAreKnownWithoutBeingRead) {
  const Texts texts(kDeepseekFolder);
  // Three digits a token at most; a run of spaces is one token up to its longest.
  EXPECT_GE(texts.bounds.least_num_tokens(std::string(30'000'000, '7')), 10'000'000);
  EXPECT_GE(texts.bounds.least_num_tokens(std::string(10'001'000, ' ')), 10'000);
}

TEST(TextBounds, PiecesGiveTheTokensOfTheWhole) {
  std::mt19937 random(7);
  for (const std::string& folder : {kDeepseekFolder, kNanoFolder}) {
    const Texts texts(folder);
    std::string text;
    const auto rows = read_fixture("strings");
    while (text.size() < 400'000) {
      text += text_of(rows[random() % rows.size()], "text");
      text += std::array{"\n", "\n\n", "\r\n", "\n1", "\na", " ", ""}[random() % 7];
    }
    EXPECT_EQ(*texts.bounds.encode(text, true), *texts.tokenizer->encode(text, true));
  }
}

}  // namespace
}  // namespace cachalot
