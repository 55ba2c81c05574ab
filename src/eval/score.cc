#include "eval/score.h"

#include <fmt/format.h>

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

Result<json::array> take_list(const json::object& object, const char* key) {
  const json::value* value = object.if_contains(key);
  if (!value) return json::array();
  if (!value->is_array()) return make_error(ErrorCode::kInvalidArgument, "\"{}\" is not a list", key);
  return value->get_array();
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
  ASSIGN_OR_RETURN(question.messages, take_list(*object, "messages"));
  ASSIGN_OR_RETURN(question.tools, take_list(*object, "tools"));
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

namespace {

constexpr std::string_view kThoughtEnd = "</think>";

bool is_right(const Question& question, const Answer& answer) {
  return after_thought(answer.text) == question.answer;
}

FamilyScore& family_of(Score& score, const std::string& family) {
  const auto found = std::find_if(score.families.begin(), score.families.end(),
                                  [&](const FamilyScore& known) { return known.family == family; });
  return found != score.families.end() ? *found : score.families.emplace_back(FamilyScore{family, {}});
}

std::string percent(double share) {
  return fmt::format("{:.1f}%", 100 * share);
}

json::object tally_json(const Tally& tally) {
  return {{"num_questions", tally.num_questions},
          {"num_answered", tally.num_answered},
          {"num_right", tally.num_right},
          {"accuracy", tally.accuracy()}};
}

json::object question_json(const Question& question) {
  return {{"line", question.line},
          {"family", question.family},
          {"question", question.question},
          {"expected", question.answer}};
}

}  // namespace

std::string_view after_thought(std::string_view text) {
  const size_t end = text.find(kThoughtEnd);
  return trimmed(end == text.npos ? text : text.substr(end + kThoughtEnd.size()));
}

double Score::mean_over_families() const {
  double sum = 0;
  int num_families = 0;
  for (const FamilyScore& family : families) {
    if (family.tally.num_answered == 0) continue;
    sum += family.tally.accuracy();
    num_families++;
  }
  return num_families ? sum / num_families : 0;
}

Score score_answers(const std::vector<Question>& questions, const Answers& answers) {
  Score score;
  for (size_t idx = 0; idx < questions.size(); idx++) {
    for (Tally* tally : {&family_of(score, questions[idx].family).tally, &score.all}) {
      tally->num_questions++;
      if (!answers[idx]) continue;
      tally->num_answered++;
      tally->num_right += is_right(questions[idx], *answers[idx]);
    }
  }
  return score;
}

std::string score_table(const Score& score) {
  constexpr std::string_view kMean = "mean over families";
  size_t width = kMean.size();
  for (const FamilyScore& family : score.families) width = std::max(width, family.family.size());
  const auto row = [&](std::string_view name, const auto& answered, const auto& right, std::string_view share) {
    return fmt::format("{:<{}}  {:>8}  {:>7}  {:>7}\n", name, width, answered, right, share);
  };
  std::string table = row("family", "answered", "exact", "");
  for (const auto& [family, tally] : score.families)
    table += row(family, tally.num_answered, tally.num_right, tally.num_answered ? percent(tally.accuracy()) : "-");
  table += row("all questions", score.all.num_answered, score.all.num_right, percent(score.all.accuracy()));
  table += row(kMean, "", "", percent(score.mean_over_families()));
  return table;
}

std::string score_json(const EvalSubject& subject, const std::vector<Question>& questions, const Answers& answers) {
  const Score score = score_answers(questions, answers);
  json::array families, wrong, failed;
  for (const auto& [family, tally] : score.families) {
    json::object entry = tally_json(tally);
    entry["family"] = family;
    families.push_back(std::move(entry));
  }
  for (size_t idx = 0; idx < questions.size(); idx++) {
    json::object entry = question_json(questions[idx]);
    if (!answers[idx]) {
      entry["error"] = answers[idx].error().message;
      failed.push_back(std::move(entry));
    } else if (!is_right(questions[idx], *answers[idx])) {
      entry["got"] = after_thought(answers[idx]->text);
      entry["finish_reason"] = answers[idx]->finish_reason;
      wrong.push_back(std::move(entry));
    }
  }
  const json::object result{{"model", subject.model},
                            {"url", subject.url},
                            {"questions", subject.questions_path},
                            {"bare", subject.bare},
                            {"all", tally_json(score.all)},
                            {"mean_over_families", score.mean_over_families()},
                            {"families", std::move(families)},
                            {"wrong", std::move(wrong)},
                            {"failed", std::move(failed)}};
  return json::serialize(result) + "\n";
}

}  // namespace cachalot
