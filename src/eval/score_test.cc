#include "eval/score.h"

#include <gmock/gmock.h>

#include <boost/json.hpp>

namespace cachalot {

namespace json = boost::json;

namespace {

using testing::HasSubstr;
using testing::StartsWith;

std::string error_of(std::string_view text) {
  const auto questions = parse_questions(text, "q.jsonl");
  return questions ? "no error" : questions.error().message;
}

TEST(Questions, AreReadLineByLineWithTheirPlaces) {
  const auto questions = parse_questions(
      "{\"family\":\"sum\",\"question\":\"1+1?\",\"answer\":\"2\"}\r\n\n"
      "  {\"answer\":\"a \\\"b\\\"\",\"question\":\"q\\n\",\"family\":\"quotes\",\"seed\":7}",
      "q.jsonl");
  ASSERT_TRUE(questions) << questions.error().message;
  ASSERT_EQ(questions->size(), 2u);
  EXPECT_EQ((*questions)[0].family, "sum");
  EXPECT_EQ((*questions)[0].question, "1+1?");
  EXPECT_EQ((*questions)[0].answer, "2");
  EXPECT_EQ((*questions)[0].line, 1);
  EXPECT_EQ((*questions)[1].question, "q\n");
  EXPECT_EQ((*questions)[1].answer, "a \"b\"");
  EXPECT_EQ((*questions)[1].line, 3);
}

TEST(Questions, MayStandInMessagesAndHaveTools) {
  const auto questions = parse_questions(
      R"({"family":"f","question":"q","answer":"a","messages":[{"role":"user"}],"tools":[{"type":"function"}]})"
      "\n"
      R"({"family":"f","question":"q","answer":"a","tools":[{}]})"
      "\n"
      R"({"family":"f","question":"q","answer":"a"})",
      "q.jsonl");
  ASSERT_TRUE(questions) << questions.error().message;
  EXPECT_EQ((*questions)[0].messages, (json::array{{{"role", "user"}}}));
  EXPECT_EQ((*questions)[0].tools, (json::array{{{"type", "function"}}}));
  EXPECT_TRUE((*questions)[0].needs_chat() && (*questions)[1].needs_chat());
  EXPECT_FALSE((*questions)[2].needs_chat());
}

TEST(Questions, ErrorsNameFileLineAndKey) {
  const std::string good = R"({"family":"f","question":"q","answer":"a"})";
  EXPECT_THAT(error_of(good + "\n{\"family\":"), StartsWith("q.jsonl:2: not JSON: "));
  EXPECT_THAT(error_of(good + "\n\n[1]"), StartsWith("q.jsonl:3: not an object"));
  EXPECT_THAT(error_of(R"({"family":"f","question":"q"})"), StartsWith("q.jsonl:1: \"answer\" is missing"));
  EXPECT_EQ(error_of(R"({"family":"f","question":"q","answer":42})"), "q.jsonl:1: \"answer\" is 42, not a string");
  EXPECT_EQ(error_of(R"({"family":" ","question":"q","answer":"a"})"), "q.jsonl:1: \"family\" is empty");
  EXPECT_THAT(error_of(R"({"family":"f","question":"q","answer":"a\n"})"), HasSubstr("white space"));
  EXPECT_EQ(error_of(R"({"family":"f","question":"q","answer":"a","tools":{}})"), "q.jsonl:1: \"tools\" is not a list");
  EXPECT_EQ(error_of(""), "q.jsonl: no questions");
  EXPECT_EQ(error_of("\n \n"), "q.jsonl: no questions");
}

TEST(Questions, ASelectionIsSpreadOverAll) {
  std::vector<Question> questions(10);
  for (int idx = 0; idx < 10; idx++) questions[static_cast<size_t>(idx)].line = idx;
  const auto lines = [&](size_t num_wanted) {
    std::vector<int> lines;
    for (const Question& question : spread_selection(questions, num_wanted)) lines.push_back(question.line);
    return lines;
  };
  EXPECT_EQ(lines(3), (std::vector{0, 3, 6}));
  EXPECT_EQ(lines(10), (std::vector{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}));
  EXPECT_EQ(lines(99).size(), 10u);
}
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
