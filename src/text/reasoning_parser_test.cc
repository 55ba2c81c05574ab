#include "text/reasoning_parser.h"

#include <gtest/gtest.h>

#include <ostream>
#include <vector>

namespace cachalot {

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
  expect_parsed(true, "Let me see.\n</think>\n\n3.8", {"Let me see.\n", "\n\n3.8"});
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
