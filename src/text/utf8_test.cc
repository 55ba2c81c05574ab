#include "text/utf8.h"

#include <gtest/gtest.h>

#include <random>

namespace cachalot {
namespace {

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
