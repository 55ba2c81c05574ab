#include "eval/score.h"

#include <gmock/gmock.h>

#include <boost/json.hpp>

namespace cachalot {
namespace {

namespace json = boost::json;
using testing::HasSubstr;

// Three questions of one family, of which one is not answered, and one question of another.
const std::vector<Question> kQuestions{
    {"sum", "1+1?", "2", 1}, {"sum", "1+2?", "3", 2}, {"day", "After Sunday?", "Monday.", 4}, {"sum", "2+2?", "4", 5}};
const Answers kAnswers{Answer{"\n\n2\n", "stop"}, Answer{"one and two\n</think>\n\n4", "length"},
                       Answer{"<think>hm</think>Monday.", "stop"},
                       make_error(ErrorCode::kUnavailable, "the server answers 500: no")};

TEST(Score, TheAnswerIsWhatFollowsTheThoughtTrimmed) {
  EXPECT_EQ(after_thought("thought\n</think>\n\n 3.8 is larger. \n"), "3.8 is larger.");
  EXPECT_EQ(after_thought("  no thought "), "no thought");
  EXPECT_EQ(after_thought("a</think>b</think>c"), "b</think>c");
  EXPECT_EQ(after_thought("thought</think>"), "");
}

TEST(Score, CountsExactAnswersPerFamilyOfThoseThatWereAnswered) {
  const Score score = score_answers(kQuestions, kAnswers);
  ASSERT_EQ(score.families.size(), 2u);
  EXPECT_EQ(score.families[0].family, "sum");
  EXPECT_EQ(score.families[0].tally.num_questions, 3);
  EXPECT_EQ(score.families[0].tally.num_answered, 2);
  EXPECT_EQ(score.families[0].tally.num_right, 1);
  EXPECT_EQ(score.families[1].tally.accuracy(), 1);
  EXPECT_EQ(score.all.num_answered, 3);
  EXPECT_DOUBLE_EQ(score.all.accuracy(), 2.0 / 3);
  EXPECT_DOUBLE_EQ(score.mean_over_families(), 0.75);
}

TEST(Score, OnlyTheExactAnswerIsRight) {
  for (const char* text : {"2.", "2 2", "two", ""}) {
    EXPECT_EQ(score_answers({kQuestions[0]}, {Answer{text, "stop"}}).all.num_right, 0) << text;
  }
}

TEST(Score, AFamilyOfWhichNothingWasAnsweredHasNoPartInTheMean) {
  const Score score = score_answers({kQuestions[2], kQuestions[3]}, {kAnswers[2], kAnswers[3]});
  EXPECT_EQ(score.mean_over_families(), 1);
  EXPECT_EQ(score_answers({kQuestions[3]}, {kAnswers[3]}).mean_over_families(), 0);
}

TEST(Score, TheTableHasALinePerFamilyAndBothMeans) {
  EXPECT_EQ(score_table(score_answers(kQuestions, kAnswers)),
            "family              answered    exact         \n"
            "sum                        2        1    50.0%\n"
            "day                        1        1   100.0%\n"
            "all questions              3        2    66.7%\n"
            "mean over families                       75.0%\n");
}

TEST(Score, TheJsonSaysWhatWasWrongAndWhatFailed) {
  const json::value result = json::parse(score_json(
      {.model = "m", .url = "http://h:1/v1", .questions_path = "q.jsonl", .bare = true}, kQuestions, kAnswers));
  EXPECT_EQ(result.at("model"), "m");
  EXPECT_EQ(result.at("bare"), true);
  EXPECT_EQ(result.at("mean_over_families"), 0.75);
  EXPECT_EQ(result.at("all").at("num_right"), 2);
  EXPECT_EQ(result.at("families").at(0).at("family"), "sum");
  EXPECT_EQ(result.at("families").at(0).at("accuracy"), 0.5);
  ASSERT_EQ(result.at("wrong").as_array().size(), 1u);
  EXPECT_EQ(result.at("wrong").at(0), json::value({{"line", 2},
                                                   {"family", "sum"},
                                                   {"question", "1+2?"},
                                                   {"expected", "3"},
                                                   {"got", "4"},
                                                   {"finish_reason", "length"}}));
  ASSERT_EQ(result.at("failed").as_array().size(), 1u);
  EXPECT_EQ(result.at("failed").at(0).at("line"), 5);
  EXPECT_THAT(result.at("failed").at(0).at("error").as_string().c_str(), HasSubstr("500"));
}

}  // namespace
}  // namespace cachalot
