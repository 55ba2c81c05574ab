#include "text/answer_text.h"

#include <gtest/gtest.h>

#include <ostream>
#include <random>
#include <vector>

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
  StreamingDetokenizer cut = detokenizer;
  EXPECT_EQ(detokenizer.finish(), "\uFFFD");
  EXPECT_EQ(cut.finish(true), "");
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

bool operator==(const ReasoningParser::Piece& a, const ReasoningParser::Piece& b) {
  return a.reasoning == b.reasoning && a.content == b.content;
}

void PrintTo(const ReasoningParser::Piece& piece, std::ostream* out) {
  *out << "{reasoning " << testing::PrintToString(piece.reasoning) << ", content "
       << testing::PrintToString(piece.content) << "}";
}

namespace {

using Piece = ReasoningParser::Piece;

Piece parse(bool starts_inside, const std::vector<std::string>& pieces) {
  ReasoningParser parser(starts_inside);
  Piece whole;
  const auto take = [&](const Piece& piece) {
    whole.reasoning += piece.reasoning;
    whole.content += piece.content;
  };
  for (const std::string& piece : pieces) take(parser.add(piece));
  take(parser.finish());
  return whole;
}

// Cut in one place, in two places, and into single bytes: always the same.
void expect_parsed(bool starts_inside, const std::string& text, const Piece& expected) {
  std::vector<std::string> bytes;
  for (const char byte : text) bytes.emplace_back(1, byte);
  EXPECT_EQ(parse(starts_inside, bytes), expected) << text;
  for (size_t first = 0; first <= text.size(); ++first) {
    for (size_t second = first; second <= text.size(); ++second) {
      ASSERT_EQ(parse(starts_inside, {text.substr(0, first), text.substr(first, second - first), text.substr(second)}),
                expected)
          << text << " cut at " << first << " and " << second;
    }
  }
}

TEST(ReasoningParser, SplitsAThoughtThatTheTemplateOpened) {
  expect_parsed(true, "Let me see.\n</think>\n\n3.8", {"Let me see.\n", "3.8"});
  expect_parsed(true, "Let me see.\n</think> \r\n\t", {"Let me see.\n", ""});
  expect_parsed(true, "</think>3.8", {"", "3.8"});
  expect_parsed(true, " a < b </thin </thinker></think>c", {" a < b </thin </thinker>", "c"});
}

TEST(ReasoningParser, SplitsAThoughtThatTheModelOpened) {
  expect_parsed(false, "<think>\nHm.</think>Yes", {"\nHm.", "Yes"});
  expect_parsed(false, "\n <think>Hm.</think>Yes", {"Hm.", "Yes"});
}

TEST(ReasoningParser, AnOpeningTagAfterTheTemplatesOwnIsNotPartOfTheThought) {
  expect_parsed(true, "<think>Hm.</think>Yes", {"Hm.", "Yes"});
}

TEST(ReasoningParser, TextWithoutAThoughtIsContent) {
  expect_parsed(false, "Just <think>text</think>", {"", "Just <think>text</think>"});
  expect_parsed(false, "<thin", {"", "<thin"});
  expect_parsed(false, "  ", {"", "  "});
  expect_parsed(false, "", {"", ""});
}

TEST(ReasoningParser, AnUnfinishedThoughtIsAllReasoning) {
  expect_parsed(true, "still thinking </thi", {"still thinking </thi", ""});
  expect_parsed(false, "<think>still", {"still", ""});
  expect_parsed(true, "\n<th", {"\n<th", ""});
  expect_parsed(true, "", {"", ""});
}

TEST(ReasoningParser, OnlyTheFirstClosingTagEndsTheThought) {
  expect_parsed(true, "a</think>b</think><think>c", {"a", "b</think><think>c"});
}

TEST(ReasoningParser, WhiteSpaceBehindAThoughtStaysWhereTheAnswerMayBeginWithSome) {
  ReasoningParser parser(true, {}, true);
  EXPECT_EQ(parser.add("a</think>\n b"), (Piece{"a", "\n b"}));
}

TEST(ReasoningParser, WhereTheClosingTagIsATokenItsTextInOthersIsThought) {
  ReasoningParser parser(true);
  parser.end_is_token();
  EXPECT_EQ(parser.add("what does </think> mean? </thi"), (Piece{"what does </think> mean? </thi", ""}));
  parser.end_may_come();
  EXPECT_EQ(parser.add("</think>b</think>"), (Piece{"", "b</think>"}));
}

TEST(ReasoningParser, WhereTheOpeningTagIsATokenItsTextInOthersOpensNoThought) {
  ReasoningParser spelled(false);
  spelled.begin_is_token();
  EXPECT_EQ(spelled.add("<think> opens"), (Piece{"", "<think> opens"}));
  ReasoningParser opened(false);
  opened.begin_is_token();
  EXPECT_EQ(opened.add("\n"), Piece{});
  opened.begin_may_come();
  EXPECT_EQ(opened.add("<think>a</think>b"), (Piece{"a", "b"}));
}

TEST(ReasoningParser, TextIsPassedOnAsSoonAsItIsCertain) {
  ReasoningParser parser(true);
  EXPECT_EQ(parser.add("abc"), (Piece{"abc", ""}));
  EXPECT_EQ(parser.add("d<"), (Piece{"d", ""}));
  EXPECT_EQ(parser.add("e"), (Piece{"<e", ""}));
  EXPECT_EQ(parser.add("</think>"), Piece{});
  EXPECT_EQ(parser.add("</"), (Piece{"", "</"}));
}

TEST(ReasoningParser, KnowsWhetherAPromptEndsInsideAThought) {
  EXPECT_TRUE(ReasoningParser::opens_thought("<｜User｜>Hi<｜Assistant｜><think>\n"));
  EXPECT_TRUE(ReasoningParser::opens_thought("<｜User｜>Hi<｜Assistant｜><think>\nThe user greets"));
  EXPECT_FALSE(ReasoningParser::opens_thought("<｜User｜>Hi<｜Assistant｜>"));
  EXPECT_FALSE(ReasoningParser::opens_thought("<｜User｜>Hi<｜Assistant｜><think>\n\n</think>\n\n"));
  EXPECT_FALSE(ReasoningParser::opens_thought("<｜User｜>What does <think> mean?<｜Assistant｜>"));
  EXPECT_FALSE(ReasoningParser::opens_thought("user: <think>?<|im_end|>\n<|im_start|>assistant\n"));
  EXPECT_FALSE(ReasoningParser::opens_thought(""));
}

}  // namespace

}  // namespace cachalot
