#include "eval/questions.h"

#include <algorithm>
#include <boost/json.hpp>

#include "base/text.h"

namespace cachalot {

namespace json = boost::json;

namespace {

Result<std::string> take_string(const json::object& object, const char* key) {
  const json::value* value = object.if_contains(key);
  if (!value)
    return make_error(ErrorCode::kInvalidArgument, "\"{}\" is missing; a question has family, question and answer",
                      key);
  const json::string* text = value->if_string();
  if (!text) return make_error(ErrorCode::kInvalidArgument, "\"{}\" is {}, not a string", key, json::serialize(*value));
  if (trimmed(*text).empty()) return make_error(ErrorCode::kInvalidArgument, "\"{}\" is empty", key);
  return std::string(*text);
}

Result<Question> parse_question(std::string_view line) {
  boost::system::error_code error;
  const json::value value = json::parse(line, error);
  if (error) return make_error(ErrorCode::kInvalidArgument, "not JSON: {}", error.message());
  const json::object* object = value.if_object();
  if (!object)
    return make_error(ErrorCode::kInvalidArgument, "not an object with the strings family, question and answer");
  Question question;
  ASSIGN_OR_RETURN(question.family, take_string(*object, "family"));
  ASSIGN_OR_RETURN(question.question, take_string(*object, "question"));
  ASSIGN_OR_RETURN(question.answer, take_string(*object, "answer"));
  if (trimmed(question.answer) != question.answer)
    return make_error(ErrorCode::kInvalidArgument,
                      "\"answer\" has white space at its start or end; what a model says is compared without");
  return question;
}

}  // namespace

Result<std::vector<Question>> parse_questions(std::string_view text, const std::string& path) {
  std::vector<Question> questions;
  for (int line_number = 1; !text.empty(); line_number++) {
    const size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = trimmed(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.empty()) continue;
    Result<Question> question = parse_question(line);
    if (!question) return make_error(question.error().code, "{}:{}: {}", path, line_number, question.error().message);
    question->line = line_number;
    questions.push_back(std::move(*question));
  }
  if (questions.empty()) return make_error(ErrorCode::kInvalidArgument, "{}: no questions", path);
  return questions;
}

std::vector<Question> spread_selection(const std::vector<Question>& questions, size_t num_wanted) {
  const size_t num_selected = std::min(num_wanted, questions.size());
  std::vector<Question> selection;
  for (size_t idx = 0; idx < num_selected; idx++) selection.push_back(questions[idx * questions.size() / num_selected]);
  return selection;
}

}  // namespace cachalot
