#include "text/detokenizer.h"

#include <gtest/gtest.h>

#include "text/huggingface_test_util.h"

namespace cachalot {
namespace {

class Detokenizer : public testing::Test {
 protected:
  static void SetUpTestSuite() { tokenizer_ = Tokenizer::load(kNanoFolder)->release(); }
  static void TearDownTestSuite() { delete tokenizer_; }

  static std::vector<TokenId> ids(std::string_view text) { return tokenizer_->encode(text, false).value(); }

  static Tokenizer* tokenizer_;
};

Tokenizer* Detokenizer::tokenizer_ = nullptr;

TEST_F(Detokenizer, GivesACharacterWithTheTokenThatCompletesIt) {
  const std::vector<TokenId> tokens = ids("🐳");  // the small vocabulary has it only as bytes
  ASSERT_EQ(tokens.size(), 4u);
  StreamingDetokenizer detokenizer(*tokenizer_, {}, true, false);
  for (int index = 0; index < 3; ++index) EXPECT_EQ(detokenizer.add(tokens[index]), "");
  EXPECT_EQ(detokenizer.add(tokens[3]), "🐳");
  EXPECT_EQ(detokenizer.finish(), "");
}

TEST_F(Detokenizer, EndsACutCharacterWithAReplacementMark) {
  const std::vector<TokenId> tokens = ids("a🐳");
  StreamingDetokenizer detokenizer(*tokenizer_, {}, true, false);
  std::string text;
  for (size_t index = 0; index + 1 < tokens.size(); ++index) text += detokenizer.add(tokens[index]);
  EXPECT_EQ(text, "a");
  EXPECT_EQ(detokenizer.finish(), "\uFFFD");
}

TEST_F(Detokenizer, SkipsSpecialTokensOnlyIfAsked) {
  const std::vector<TokenId> tokens = ids("<think>a</think>b<｜end▁of▁sentence｜>");
  for (const bool skip_special : {true, false}) {
    StreamingDetokenizer detokenizer(*tokenizer_, {}, skip_special, false);
    std::string text;
    for (const TokenId token : tokens) text += detokenizer.add(token);
    // <think> is an added token, but not a special one.
    EXPECT_EQ(text, skip_special ? "<think>a</think>b" : "<think>a</think>b<｜end▁of▁sentence｜>");
  }
}

TEST_F(Detokenizer, IgnoresIdsThatAreNoTokens) {
  StreamingDetokenizer detokenizer(*tokenizer_, {}, true, false);
  EXPECT_EQ(detokenizer.add(-1) + detokenizer.add(tokenizer_->vocab_size()) + detokenizer.finish(), "");
}

TEST_F(Detokenizer, StopsInsideATokenAndAcrossTokens) {
  const std::string text = "Which one is larger? 3.8 or 3.11 🐳 end";
  const std::vector<TokenId> tokens = ids(text);
  ASSERT_LT(tokens.size(), text.size());
  for (size_t begin = 0; begin < text.size(); ++begin) {
    for (size_t size : {1, 3, 9}) {
      const std::string stop = text.substr(begin, size);
      if (to_valid_utf8(stop) != stop) continue;  // a part of a character is no text
      StreamingDetokenizer detokenizer(*tokenizer_, {stop}, true, false);
      std::string streamed;
      for (const TokenId token : tokens) streamed += detokenizer.add(token);
      streamed += detokenizer.finish();
      EXPECT_TRUE(detokenizer.stopped());
      EXPECT_EQ(detokenizer.stop_string(), stop);
      EXPECT_EQ(streamed, text.substr(0, text.find(stop)));
    }
  }
}

TEST_F(Detokenizer, FindsNoStopStringInTokensThatMustCome) {
  StreamingDetokenizer detokenizer(*tokenizer_, {"11"}, true, false);
  std::string text;
  for (const TokenId token : ids("11 ")) text += detokenizer.add(token, false);
  EXPECT_EQ(text, "11 ");
  for (const TokenId token : ids("3.11 x")) text += detokenizer.add(token);
  EXPECT_EQ(text, "11 3.");
  EXPECT_EQ(detokenizer.stop_string(), "11");
}

TEST_F(Detokenizer, ReleasesAtTheEndWhatDidNotBecomeAStopString) {
  StreamingDetokenizer detokenizer(*tokenizer_, {"3.12"}, true, true);
  std::string text;
  for (const TokenId token : ids("3.1")) text += detokenizer.add(token);
  EXPECT_EQ(text, "");
  EXPECT_EQ(detokenizer.finish(), "3.1");
  EXPECT_FALSE(detokenizer.stopped());
}

}  // namespace
}  // namespace cachalot
