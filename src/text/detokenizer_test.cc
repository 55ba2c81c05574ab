#include "text/detokenizer.h"

#include <gtest/gtest.h>

#include <random>

#include "text/huggingface_test_util.h"

namespace cachalot {

namespace {

struct Outcome {
  std::string text, stop_string;
  bool operator==(const Outcome&) const = default;
};

Outcome run(const std::vector<std::string>& stops, bool include_stop, const std::vector<std::string>& pieces) {
  StopMatcher matcher(stops, include_stop);
  std::string text;
  for (const std::string& piece : pieces) matcher.add(piece, text);
  matcher.finish(text);
  return {text, matcher.stop_string()};
}

// The definition, by search: the stop string whose end comes first, of those that end there the longest.
Outcome expected(const std::vector<std::string>& stops, bool include_stop, const std::string& text) {
  for (size_t end = 1; end <= text.size(); ++end) {
    std::string best;
    for (const std::string& stop : stops) {
      if (stop.size() > best.size() && text.substr(0, end).ends_with(stop)) best = stop;
    }
    if (!best.empty()) return {text.substr(0, include_stop ? end : end - best.size()), best};
  }
  return {text, ""};
}

// All ways to cut a text into pieces.
std::vector<std::vector<std::string>> all_splits(const std::string& text) {
  std::vector<std::vector<std::string>> splits;
  for (unsigned cuts = 0; cuts < 1u << (text.size() - 1); ++cuts) {
    std::vector<std::string> pieces = {""};
    for (size_t index = 0; index < text.size(); ++index) {
      if (index > 0 && (cuts >> (index - 1) & 1)) pieces.emplace_back();
      pieces.back() += text[index];
    }
    splits.push_back(std::move(pieces));
  }
  return splits;
}

TEST(StopMatcher, FindsTheStopStringHoweverTheTextIsCut) {
  const std::vector<std::string> stops = {"END", "\n\n", "ENDING"};
  for (const std::string text : {"ab ENDcd", "a\n\nb", "aENDINGb", "EEENDx", "\n \n\n", "ENENEN", "ab EN"}) {
    for (const bool include_stop : {false, true}) {
      for (const auto& pieces : all_splits(text)) {
        ASSERT_EQ(run(stops, include_stop, pieces), expected(stops, include_stop, text)) << text;
      }
    }
  }
}

TEST(StopMatcher, AgreesWithItsDefinitionOnRandomTextsOfTwoLetters) {
  std::mt19937 random(3);
  const auto word = [&](size_t max_size) {
    std::string text;
    for (size_t size = 1 + random() % max_size; size > 0; --size) text += "ab"[random() % 2];
    return text;
  };
  for (int round = 0; round < 5000; ++round) {
    const std::vector<std::string> stops = {word(5), word(5), word(7)};
    std::vector<std::string> pieces;
    std::string text;
    while (text.size() < 20) text += pieces.emplace_back(word(4));
    const bool include_stop = random() % 2;
    ASSERT_EQ(run(stops, include_stop, pieces), expected(stops, include_stop, text)) << text;
  }
}

TEST(StopMatcher, HoldsBackOnlyWhatMayBecomeAStopString) {
  StopMatcher matcher({"aab"}, false);
  std::string text;
  matcher.add("xa", text);
  EXPECT_EQ(text, "x");
  matcher.add("a", text);
  EXPECT_EQ(text, "x");
  matcher.add("a", text);  // the last two may still begin "aab"
  EXPECT_EQ(text, "xa");
  matcher.add("c", text);
  EXPECT_EQ(text, "xaaac");
  EXPECT_FALSE(matcher.stopped());
}

TEST(StopMatcher, NothingComesAfterAMatch) {
  StopMatcher matcher({"."}, false);
  std::string text;
  matcher.add("One. Two", text);
  matcher.add("Three.", text);
  matcher.finish(text);
  EXPECT_EQ(text, "One");
  EXPECT_TRUE(matcher.stopped());
}

TEST(StopMatcher, WithoutStopStringsEverythingPasses) {
  EXPECT_EQ(run({}, false, {"a", "", "b"}), (Outcome{"ab", ""}));
  EXPECT_EQ(run({""}, false, {"a", "", "b"}), (Outcome{"ab", ""}));
}

TEST(StopMatcher, TextFullOfBeginningsTakesLinearTime) {
  const std::string stop(20'000, 'a');
  StopMatcher matcher({stop + "b"}, false);
  std::string text;
  for (int piece = 0; piece < 200'000; ++piece) matcher.add("a", text);
  EXPECT_EQ(text.size(), 180'000u);
}

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
