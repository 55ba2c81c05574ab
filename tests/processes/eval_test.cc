// `cachalot eval`, as a user runs it: the built-in model's score is the same in every layout.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json.hpp>

#include "base/file.h"
#include "processes/program.h"

namespace cachalot::test {
namespace {

namespace json = boost::json;
using testing::HasSubstr;
using testing::Not;

constexpr std::chrono::seconds kPatience{60};  // four ranks on few cores, beside other work

class Eval : public testing::Test {
 protected:
  // Asks the built-in model the fixture's questions, of which it answers all but the last as they say.
  void run(const std::vector<std::string>& more_flags = {}) {
    const std::string root = CACHALOT_SOURCE_DIR, path = folder_ / "score.json";
    std::vector<std::string> flags{
        "eval",   "--model", root + "/models/nano",       "--questions", root + "/tests/data/eval/nano.jsonl",
        "--json", path,      "--num-gpu-blocks-override", "64"};
    flags.insert(flags.end(), more_flags.begin(), more_flags.end());
    Program program(flags);
    status_ = program.wait(kPatience);
    EXPECT_TRUE(program.wait_for_silence(std::chrono::seconds(5))) << "a rank was left behind";
    output_ = program.output();
    const Result<std::string> text = read_file(path);
    ASSERT_TRUE(text) << output_;
    score_ = json::parse(*text);
  }

  void expect_all_but_one() const {
    EXPECT_EQ(status_, 0) << output_;
    EXPECT_EQ(score_.at("all").at("num_answered"), 6);
    EXPECT_EQ(score_.at("all").at("num_right"), 5) << score_.at("wrong");
    EXPECT_DOUBLE_EQ(score_.at("mean_over_families").as_double(), 0.875);
    ASSERT_EQ(score_.at("wrong").as_array().size(), 1u);
    EXPECT_EQ(score_.at("wrong").at(0).at("line"), 6);
    EXPECT_EQ(score_.at("wrong").at(0).at("got"), "Hello! How can I help you?");
    EXPECT_THAT(output_, HasSubstr("mean over families                       87.5%"));
    EXPECT_THAT(output_, Not(HasSubstr(" I "))) << "the log beside the bar is for warnings";
  }

  ScratchFolder folder_;
  std::optional<int> status_;
  std::string output_;
  json::value score_;
};

TEST_F(Eval, ScoresAModelOnOneRank) {
  run();
  expect_all_but_one();
}

TEST_F(Eval, TwoReplicasOfTwoRanksScoreAsOneRankDoes) {
  run({"-t", "2", "--data-parallel-size", "2", "--enable-expert-parallel"});
  expect_all_but_one();
}

TEST_F(Eval, BareQuestionsAreAnsweredToo) {
  run({"--bare"});
  expect_all_but_one();
}

TEST_F(Eval, AScoreThatIsTooLowEndsWithStatusOne) {
  run({"--min-accuracy", "0.9"});
  EXPECT_EQ(status_, 1);
  EXPECT_THAT(output_, HasSubstr("the mean over families is 0.8750, below --min-accuracy 0.9"));
}

TEST_F(Eval, QuestionsThatCannotBeAskedEndWithStatusOneAndAreNamed) {
  run({"--max-tokens", "100000"});
  EXPECT_EQ(status_, 1);
  EXPECT_EQ(score_.at("failed").as_array().size(), 6u);
  EXPECT_THAT(output_, HasSubstr("nano.jsonl:1: the server answers 400: "));
  EXPECT_THAT(output_, HasSubstr("6 of 6 questions could not be asked"));
}

}  // namespace
}  // namespace cachalot::test
