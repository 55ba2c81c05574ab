#include "router/answer_keeper.h"

#include <algorithm>
#include <utility>

#include "openai/answer/answer_log.h"

namespace cachalot::router {

namespace answer_log = openai::answer_log;

namespace {

constexpr std::string_view kRecordMark = ":@";
constexpr std::string_view kRecordEnd = "\n\n";
constexpr std::chrono::milliseconds kFirstPause{100}, kLongestPause{2000};

}  // namespace

LogReader::Step LogReader::pass(std::string_view bytes) {
  Step step;
  held_ += bytes;
  size_t begin = 0;  // of what no record accounts for yet
  for (;;) {
    size_t mark = begin;
    if (held_.compare(begin, kRecordMark.size(), kRecordMark) != 0) {
      mark = held_.find("\n:@", std::max(begin, num_searched_));
      num_searched_ = std::max(begin, held_.size() - std::min(held_.size(), kRecordMark.size()));
      if (mark == held_.npos) break;
      num_searched_ = mark++;
    }
    const size_t end = held_.find(kRecordEnd, mark);
    if (end == held_.npos) break;
    const std::string_view record = std::string_view(held_).substr(mark, end + kRecordEnd.size() - mark);
    const std::string_view told = std::string_view(held_).substr(begin, mark - begin);
    step.has_failed |= record == answer_log::kFailed;
    step.is_given_up |= step.has_failed || record == answer_log::kGivenUp;
    step.is_whole |= record == answer_log::kEnd;
    (step.is_given_up ? step.last_words : step.events) += told;
    if (record.starts_with(answer_log::kTokens)) step.has_news = true;
    if (record.starts_with(answer_log::kTokens) || record.starts_with(answer_log::kBegin)) step.records += record;
    begin = end + kRecordEnd.size();
  }
  held_.erase(0, begin);
  num_searched_ -= std::min(num_searched_, begin);
  return step;
}

bool AnswerKeeper::take_request(size_t num_bytes) {
  if (is_kept_) return true;
  if (memory_.limit() == 0 || !memory_.take(num_bytes)) return false;
  num_taken_ = num_bytes;
  return is_kept_ = true;
}

void AnswerKeeper::forget() {
  memory_.give_back(std::exchange(num_taken_, 0));
  is_kept_ = false;
  log_ = {};
}

bool AnswerKeeper::begin(const http::ResponseHead& head) {
  const std::string_view field = head.headers.find(answer_log::kField).value_or("");
  const size_t first = std::min(field.find(' '), field.size()),
               second = std::min(field.find(' ', first + 1), field.size());
  const std::string_view kind = field.substr(0, first);
  const bool is_whole = kind == answer_log::kWhole;
  const bool is_log = head.status == 200 && (is_whole || kind == answer_log::kEvents) && second < field.size();
  if (!log_.empty() && (!is_log || is_whole != is_whole_)) return false;
  if (log_.empty()) text_.clear();
  is_logged_ = is_log;
  is_whole_ = is_whole;
  if (!is_log) return false;
  mark_ = field.substr(first + 1, second - first - 1);
  fingerprint_ = field.substr(second + 1);
  return true;
}

void AnswerKeeper::add(const LogReader::Step& step) {
  if (step.has_news) num_deaths_ = num_tries_ = 0;
  if (is_whole_) text_ += step.events;
  last_words_ = step.last_words;
  if (!is_kept_) return;
  if (!memory_.take(step.records.size())) return forget();
  num_taken_ += step.records.size();
  log_ += step.records;
}

void AnswerKeeper::lose(bool has_died, Time now) {
  if (has_died) num_deaths_++;
  if (!lost_) lost_ = now;
}

AnswerKeeper::Duration AnswerKeeper::next_pause() {
  const int num_tries = num_tries_++;
  if (num_tries == 0) return {};
  return std::min<Duration>(kFirstPause * (1 << std::min(num_tries - 1, 5)), kLongestPause);
}

std::optional<AnswerKeeper::Duration> AnswerKeeper::take_wait(Time now) {
  if (!lost_) return std::nullopt;
  return std::chrono::duration_cast<Duration>(now - *std::exchange(lost_, std::nullopt));
}

}  // namespace cachalot::router
