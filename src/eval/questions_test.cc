#include "eval/questions.h"

#include <gmock/gmock.h>

namespace cachalot {
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

TEST(Questions, ErrorsNameFileLineAndKey) {
  const std::string good = R"({"family":"f","question":"q","answer":"a"})";
  EXPECT_THAT(error_of(good + "\n{\"family\":"), StartsWith("q.jsonl:2: not JSON: "));
  EXPECT_THAT(error_of(good + "\n\n[1]"), StartsWith("q.jsonl:3: not an object"));
  EXPECT_THAT(error_of(R"({"family":"f","question":"q"})"), StartsWith("q.jsonl:1: \"answer\" is missing"));
  EXPECT_EQ(error_of(R"({"family":"f","question":"q","answer":42})"), "q.jsonl:1: \"answer\" is 42, not a string");
  EXPECT_EQ(error_of(R"({"family":" ","question":"q","answer":"a"})"), "q.jsonl:1: \"family\" is empty");
  EXPECT_THAT(error_of(R"({"family":"f","question":"q","answer":"a\n"})"), HasSubstr("white space"));
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

}  // namespace
}  // namespace cachalot
