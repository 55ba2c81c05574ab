#pragma once

#include <boost/json/array.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace cachalot {

struct Question {
  std::string family;  // a kind of question, which has a score of its own
  std::string question;
  std::string answer;  // the one that is right, to the letter
  int line = 0;        // in its file, from 1
  // Of a chat request: what the question stands in (empty: it stands alone), and the tools that may be called.
  boost::json::array messages, tools;

  bool needs_chat() const { return !messages.empty() || !tools.empty(); }
};

// A question file: in each line a JSON object with the strings `family`, `question` and `answer`, none of them empty,
// and perhaps the lists `messages` and `tools`; further keys and empty lines are skipped. An answer that calls tools is
// written as text, then a line for each call: its name, a space, its arguments. Errors name `path` and the line.
Result<std::vector<Question>> parse_questions(std::string_view text, const std::string& path);

// As many questions, evenly over the whole list and in its order: families usually stand together.
std::vector<Question> spread_selection(const std::vector<Question>& questions, size_t num_wanted);

// What a model said to a question.
struct Answer {
  std::string text;           // as it came, perhaps with the thought; then its calls
  std::string finish_reason;  // "stop", "length", ...
};

// For each question an answer, or why it could not be asked.
using Answers = std::vector<Result<Answer>>;

// What follows the thought (all of it, if there is no </think>), trimmed.
std::string_view after_thought(std::string_view text);

struct Tally {
  int num_questions = 0, num_answered = 0, num_right = 0;

  // Of the questions that were answered; 0 if none was.
  double accuracy() const { return num_answered ? static_cast<double>(num_right) / num_answered : 0; }
};

struct FamilyScore {
  std::string family;
  Tally tally;
};

struct Score {
  std::vector<FamilyScore> families;  // in the order of the questions
  Tally all;

  // Each family counts the same; those of which nothing was answered do not count.
  double mean_over_families() const;
};

Score score_answers(const std::vector<Question>& questions, const Answers& answers);

// For a person: a line a family, and the means.
std::string score_table(const Score& score);

// Which model was asked what, and how.
struct EvalSubject {
  std::string model, url, questions_path;
  bool bare = false;
};

// For scripts: the score, each wrong answer, each question that could not be asked.
std::string score_json(const EvalSubject& subject, const std::vector<Question>& questions, const Answers& answers);

}  // namespace cachalot
