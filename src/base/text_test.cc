#include "base/text.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

namespace cachalot {
namespace {

TEST(Quoted, KeepsWhatAPersonCanRead) {
  EXPECT_EQ(quoted(""), "''");
  EXPECT_EQ(quoted("replica 1, tp 0"), "'replica 1, tp 0'");
  EXPECT_EQ(quoted("Gr\u00fc\u00dfe \u65e5\u672c \U0001f433"), "'Gr\u00fc\u00dfe \u65e5\u672c \U0001f433'");
}

TEST(Quoted, NothingBreaksOutOfItsQuotesItsLineOrTheTerminal) {
  EXPECT_EQ(quoted("it's a \\"), R"('it\'s a \\')");
  EXPECT_EQ(quoted("a\n2026-11-01 error: b\r\t"), R"('a\n2026-11-01 error: b\r\t')");
  EXPECT_EQ(quoted(std::string_view("\0\x1b[2J\x7f", 6)), R"('\x00\x1b[2J\x7f')");
  EXPECT_EQ(quoted("\u009b2J\u202eabc\u2028\u200b\ufeff\U000e0041"),
            R"('\u{9b}2J\u{202e}abc\u{2028}\u{200b}\u{feff}\u{e0041}')");
}

TEST(Quoted, AMessageKeepsItsOwnQuotes) {
  EXPECT_EQ(escaped("--block-size is '32' on rank 2"), "--block-size is '32' on rank 2");
  EXPECT_EQ(escaped("it's\nC:\\x \xff"), "it's\\nC:\\x \\xff");
}

TEST(Quoted, APlainNameStandsBare) {
  EXPECT_EQ(name_text("replica 1, tp 0"), "replica 1, tp 0");
  EXPECT_EQ(name_text("node-3.rack_2"), "node-3.rack_2");
  EXPECT_EQ(name_text(""), "''");
  EXPECT_EQ(name_text("load-line: rank -1 1094795585%"), "'load-line: rank -1 1094795585%'");
  EXPECT_EQ(name_text("a) is well; rank 0 (b"), "'a) is well; rank 0 (b'");
  EXPECT_EQ(name_text("abcd", 3), "'abc'... (4 bytes)");
}

TEST(Quoted, WhatIsNoUtf8IsShownByteForByte) {
  EXPECT_EQ(quoted("a\xff\xe2\x82z\xed\xa0\x80\xf0\x9f"), R"('a\xff\xe2\x82z\xed\xa0\x80\xf0\x9f')");
}

TEST(Quoted, IsCutBetweenTwoCharactersAndSaysHowMuchThereWas) {
  EXPECT_EQ(quoted("abcdef", 6), "'abcdef'");
  EXPECT_EQ(quoted("abcdefg", 6), "'abcdef'... (7 bytes)");
  EXPECT_EQ(quoted("abcde\u00e9", 6), "'abcde'... (7 bytes)");
  EXPECT_EQ(escaped(std::string(70'000, 'x'), 3), "xxx... (70000 bytes)");
}

TEST(Quoted, IsOneLineOfValidUtf8WhateverComes) {
  std::mt19937 random(1);
  for (int round = 0; round < 2000; ++round) {
    std::string bytes;
    while (bytes.size() < 40) bytes += static_cast<char>(random());
    const std::string text = quoted(bytes, random() % 50);
    EXPECT_EQ(to_valid_utf8(text), text);
    EXPECT_TRUE(std::ranges::none_of(text, [](char c) { return (c >= 0 && c < ' ') || c == 0x7f; })) << text;
  }
}

TEST(Trimmed, LosesWhiteSpaceAtBothEndsOnly) {
  EXPECT_EQ(trimmed("\n\n a  b \t\r\n"), "a  b");
  EXPECT_EQ(trimmed(" \n"), "");
  EXPECT_EQ(trimmed(""), "");
}

std::string assemble(const std::vector<std::string>& pieces) {
  Utf8Assembler assembler;
  std::string text;
  for (const std::string& piece : pieces) assembler.add(piece, text);
  assembler.finish(text);
  return text;
}

TEST(Utf8, KeepsWholeCharactersOfEveryLength) {
  for (const std::string text :
       {"", "a", "\u00e9", "\u20ac", "\U0001f433", "\u0080", "\u0800", "\uffff", "\U00010000", "\U0010ffff"}) {
    EXPECT_EQ(to_valid_utf8(text), text);
  }
  EXPECT_EQ(to_valid_utf8(std::string("a\0b", 3)), std::string("a\0b", 3));
}

TEST(Utf8, ACharacterWaitsForItsLastByte) {
  Utf8Assembler assembler;
  std::string text;
  for (const char* piece : {"a\xF0", "\x9F", "\x90"}) assembler.add(piece, text);
  EXPECT_EQ(text, "a");
  assembler.add("\xB3z", text);
  EXPECT_EQ(text, "a\U0001f433z");
}

TEST(Utf8, ABrokenCharacterIsReplacedAsSoonAsItIsKnownToBeBroken) {
  Utf8Assembler assembler;
  std::string text;
  assembler.add("\xE2\x82", text);
  EXPECT_EQ(text, "");
  assembler.add("a", text);
  EXPECT_EQ(text, "\uFFFDa");
}

// The examples of the Unicode standard, section 3.9, tables 3-8 to 3-11.
TEST(Utf8, ReplacesEachMaximalInvalidPartByOneMark) {
  const std::string mark = "\uFFFD";
  const auto marks = [&](int count) {
    std::string text;
    while (count-- > 0) text += mark;
    return text;
  };
  EXPECT_EQ(to_valid_utf8("\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41"), marks(8) + "A");                   // overlong
  EXPECT_EQ(to_valid_utf8("\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41"), marks(8) + "A");                   // surrogates
  EXPECT_EQ(to_valid_utf8("\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42"), marks(5) + "A" + marks(2) + "B");  // too large
  EXPECT_EQ(to_valid_utf8("\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41"), marks(4) + "A");                   // cut short
}

TEST(Words, StandBetweenSpaces) {
  EXPECT_EQ(words_of("port model"), (std::vector<std::string>{"port", "model"}));
  EXPECT_TRUE(has_word("port model", "port"));
  EXPECT_TRUE(has_word("port model", "model"));
  for (const char* other : {"", "mode", "ort", "port model", "models"})
    EXPECT_FALSE(has_word("port model", other)) << other;
  EXPECT_FALSE(has_word("", ""));
  EXPECT_EQ(counted(1, "rank"), "1 rank");
  EXPECT_EQ(counted(0, "rank"), "0 ranks");
}

TEST(Utf8, TheResultDoesNotDependOnHowTheBytesAreCut) {
  std::mt19937 random(1);
  const std::string leads =
      "\xC3\xE2\xED\xF0\xF4\x80\x9F\xA0\xBF"
      "az";
  for (int round = 0; round < 2000; ++round) {
    std::string bytes;
    while (bytes.size() < 12) bytes += leads[random() % leads.size()];
    std::vector<std::string> pieces = {""};
    for (const char byte : bytes) {
      if (random() % 2) pieces.emplace_back();
      pieces.back() += byte;
    }
    ASSERT_EQ(assemble(pieces), to_valid_utf8(bytes));
  }
}

}  // namespace
}  // namespace cachalot
