#include "openai/answer/answer_log.h"

#include <fmt/format.h>

#include <boost/json/parse.hpp>
#include <limits>
#include <optional>

#include "base/text.h"
#include "config/json.h"
#include "openai/request/transcript.h"

namespace cachalot::openai {

namespace json = boost::json;

namespace {

constexpr char kFinishes[] = {'-', 's', 'l'};  // of kNone, kStop, kLength

std::string token_text(TokenId token, float logprob, int rank) {
  return fmt::format("{}={}/{}", token, logprob, rank);
}

// What stands before the mark, which is taken with it; all, if there is none.
std::string_view take_until(std::string_view& text, char mark) {
  const size_t end = std::min(text.find(mark), text.size());
  const std::string_view taken = text.substr(0, end);
  text.remove_prefix(std::min(end + 1, text.size()));
  return taken;
}

std::optional<TokenLogprob> parse_token(std::string_view text) {
  const auto token = parse_number<TokenId>(take_until(text, '='));
  const auto logprob = parse_number<float>(text.empty() ? "0" : take_until(text, '/'));
  const auto rank = parse_number<int>(text.empty() ? "0" : text);
  if (!token || *token < 0 || !logprob || !rank) return std::nullopt;
  return TokenLogprob{*token, *logprob, *rank};
}

std::optional<AnswerLog::Entry> parse_output(std::string_view text) {
  const auto choice = parse_number<size_t>(take_until(text, ' '));
  const auto num_cached = parse_number<int>(take_until(text, ' '));
  const std::string_view finish = take_until(text, ' ');
  const size_t reason = finish.size() == 1 ? std::string_view(kFinishes, std::size(kFinishes)).find(finish[0]) : 3;
  if (!choice || !num_cached || reason >= std::size(kFinishes)) return std::nullopt;
  AnswerLog::Entry entry{.choice = *choice, .output = {}};
  entry.output.num_cached_tokens = *num_cached;
  entry.output.finish = static_cast<FinishReason>(reason);
  while (!text.empty()) {
    std::string_view token = take_until(text, ',');
    const auto own = parse_token(take_until(token, ';'));
    if (!own) return std::nullopt;
    SampledToken& sampled = entry.output.tokens.emplace_back(
        SampledToken{.token = own->token, .logprob = own->logprob, .rank = own->rank, .top = {}});
    while (!token.empty()) {
      const auto other = parse_token(take_until(token, ';'));
      if (!other) return std::nullopt;
      sampled.top.push_back(*other);
    }
  }
  return entry;
}

std::optional<AnswerStart> parse_start(std::string_view text) {
  boost::system::error_code error;
  const json::value value = json::parse(text, error);
  const json::object* object = error ? nullptr : value.if_object();
  const json::value* created = object ? object->if_contains("created") : nullptr;
  const json::value* seed = object ? object->if_contains("seed") : nullptr;
  const json::value* stored = object ? object->if_contains("stored") : nullptr;
  if (!created || !created->is_int64() || !seed || !seed->is_string() || !stored || !stored->is_array())
    return std::nullopt;
  const auto number = parse_number<uint64_t>(std::string_view(seed->get_string()));
  if (!number) return std::nullopt;
  return AnswerStart{.name = std::string(text_at(*object, "name")),
                     .response_id = std::string(text_at(*object, "response_id")),
                     .created = created->get_int64(),
                     .seed = *number,
                     .fingerprint = std::string(text_at(*object, "fingerprint")),
                     .stored = stored->get_array()};
}

}  // namespace

std::string start_record(const AnswerStart& start) {
  std::string record = std::string(answer_log::kBegin) + ' ';
  JsonPieces object(record, "{}");
  object.add("name", json::value(start.name));
  object.add("response_id", json::value(start.response_id));
  object.add("created", start.created);
  object.add("seed", json::value(std::to_string(start.seed)));  // a reader of JSON may know no such number
  object.add("fingerprint", json::value(start.fingerprint));
  object.add("stored", start.stored);
  object.end();
  return record += "\n\n";
}

std::string output_record(size_t choice, const RequestOutput& output, bool with_logprobs) {
  static_assert(static_cast<int>(FinishReason::kStop) == 1 && static_cast<int>(FinishReason::kLength) == 2);
  const auto finish = static_cast<size_t>(output.finish);
  const bool says_nothing = output.tokens.empty() && output.finish == FinishReason::kNone;
  if (says_nothing || finish >= std::size(kFinishes)) return std::string(answer_log::kPass);
  std::string record =
      fmt::format("{} {} {} {} ", answer_log::kTokens, choice, output.num_cached_tokens, kFinishes[finish]);
  for (size_t idx = 0; idx < output.tokens.size(); ++idx) {
    const SampledToken& token = output.tokens[idx];
    if (idx > 0) record += ',';
    record += with_logprobs ? token_text(token.token, token.logprob, token.rank) : std::to_string(token.token);
    for (const TokenLogprob& other : token.top)
      if (with_logprobs) record += ';' + token_text(other.token, other.logprob, other.rank);
  }
  return record += "\n\n";
}

Result<AnswerLog> parse_answer_log(std::string_view text) {
  AnswerLog log;
  bool has_begun = false;
  while (!text.empty()) {
    std::string_view line = take_until(text, '\n');
    if (line.empty()) continue;
    const std::string_view kind = take_until(line, ' ');
    if (kind == answer_log::kBegin && !has_begun) {
      auto start = parse_start(line);
      if (!start) return make_error(ErrorCode::kCorrupt, "an answer's log begins with {}", quoted(line));
      log.start = std::move(*start);
      has_begun = true;
      continue;
    }
    auto entry = kind == answer_log::kTokens && has_begun ? parse_output(line) : std::nullopt;
    if (!entry) return make_error(ErrorCode::kCorrupt, "an answer's log holds {} {}", quoted(kind), quoted(line));
    log.entries.push_back(std::move(*entry));
  }
  if (!has_begun) return make_error(ErrorCode::kCorrupt, "an answer's log is empty");
  return log;
}

std::string format_whole(const http::Response& response) {
  std::string text = fmt::format("{}\n", response.status);
  for (const auto& [name, value] : response.headers) text += fmt::format("{}: {}\n", name, value);
  return text += "\n" + response.body + "\n\n";
}

Result<http::Response> parse_whole(std::string_view text) {
  http::Response response{.status = leading_number<int>(take_until(text, '\n')), .headers = {}, .body = {}};
  for (std::string_view line = take_until(text, '\n'); !line.empty(); line = take_until(text, '\n')) {
    const std::string_view name = take_until(line, ':');
    response.headers.add(std::string(name), std::string(trimmed(line)));
  }
  if (response.status < 200 || response.status > 599 || !text.ends_with("\n\n"))
    return make_error(ErrorCode::kCorrupt, "a whole answer in a log is none");
  text.remove_suffix(2);
  response.body = text;
  return response;
}

}  // namespace cachalot::openai
