#pragma once

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
};

// A question file: in each line a JSON object with the strings `family`, `question` and `answer`, none of them empty;
// further keys and empty lines are skipped. Errors name `path` and the line.
Result<std::vector<Question>> parse_questions(std::string_view text, const std::string& path);

// As many questions, evenly over the whole list and in its order: families usually stand together.
std::vector<Question> spread_selection(const std::vector<Question>& questions, size_t num_wanted);

}  // namespace cachalot
