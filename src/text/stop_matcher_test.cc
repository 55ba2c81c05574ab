#include "text/stop_matcher.h"

#include <gtest/gtest.h>

#include <random>

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

}  // namespace
}  // namespace cachalot
