#include "traffic/workload.h"

#include <algorithm>
#include <boost/json.hpp>
#include <cmath>
#include <sstream>

#include "base/file.h"
#include "base/text.h"
#include "config/json.h"

namespace cachalot {

namespace json = boost::json;

namespace {

constexpr int kDefaultOutput = 256;  // vLLM's, where a file does not say
constexpr uint64_t kMostFileBytes = uint64_t{4} << 30;

using Random = std::mt19937_64;

// Even in [0, bound); the same on every machine.
int below(Random& random, int bound) {
  return static_cast<int>(random() % static_cast<uint64_t>(bound));
}

int draw(Random& random, const Length& length) {
  const int least = static_cast<int>(std::floor(length.mean * (1 - length.spread)));
  const int most = static_cast<int>(std::ceil(length.mean * (1 + length.spread)));
  return least + below(random, most - least + 1);
}

// Syllables that no language has in this order, so that nothing is cached but what is meant to be.
std::string random_words(Random& random, int count) {
  constexpr std::string_view kSyllables[] = {"ba", "ter", "lo", "mi",  "san", "ke",
                                             "du", "ri",  "po", "nal", "ve",  "shi"};
  std::string text;
  for (int word = 0; word < count; word++) {
    if (word > 0) text += ' ';
    for (int left = 1 + below(random, 3); left > 0; left--)
      text += kSyllables[below(random, static_cast<int>(std::size(kSyllables)))];
  }
  return text;
}

json::value random_prompt(Random& random, const PromptSource& source, int num_tokens) {
  if (source.ids.empty() || source.as_text)
    return json::string(random_words(random, std::max(1, static_cast<int>(num_tokens / source.tokens_per_word))));
  json::array ids;
  ids.reserve(static_cast<size_t>(num_tokens));
  for (int idx = 0; idx < num_tokens; idx++)
    ids.push_back(source.ids[static_cast<size_t>(below(random, static_cast<int>(source.ids.size())))]);
  return ids;
}

json::value joined(const json::value& prefix, json::value rest) {
  if (const json::string* text = rest.if_string())
    return json::string(std::string(prefix.as_string()) + " " + std::string(*text));
  json::array ids = prefix.as_array();
  for (const json::value& id : rest.as_array()) ids.push_back(id);
  return ids;
}

}  // namespace

PromptSource ask_for_tokens(const http::Client& client, const openai::ApiAddress& address, const std::string& model) {
  constexpr int kNumWords = 4000, kFewestTokens = kNumWords / 10;  // fewer are no tokenizer's
  Random random(0);
  const json::object body{{"model", model}, {"prompt", random_words(random, kNumWords)}, {"add_special_tokens", false}};
  PromptSource source;
  auto request = address.request("POST", "/tokenize", json::serialize(body));
  if (!request) return source;
  request->url.target = "/tokenize";
  const Result<http::Response> response = client.fetch(std::move(*request));
  if (!response || response->status != 200) return source;
  boost::system::error_code error;
  const json::value answer = json::parse(response->body, error);
  const json::value* ids = error ? nullptr : answer.find_pointer("/tokens", error);
  if (!ids || !ids->is_array() || ids->get_array().size() < kFewestTokens) return source;
  for (const json::value& id : ids->get_array())
    if (id.is_int64()) source.ids.push_back(static_cast<int>(id.get_int64()));
  source.tokens_per_word = static_cast<double>(std::max<size_t>(source.ids.size(), kFewestTokens)) / kNumWords;
  return source;
}

std::vector<Conversation> make_conversations(const RandomPrompts& set, const PromptSource& source, int count,
                                             uint64_t seed) {
  Random random(seed);
  const json::value prefix = random_prompt(random, source, set.prefix_len);
  std::vector<Conversation> conversations(static_cast<size_t>(count));
  for (Conversation& conversation : conversations) {
    for (int turn = 0; turn < set.num_turns; turn++) {
      const int input = std::max(1, draw(random, set.input)), output = std::max(1, draw(random, set.output));
      json::value prompt = random_prompt(random, source, input);
      if (turn == 0 && set.prefix_len > 0) prompt = joined(prefix, std::move(prompt));
      conversation.push_back({std::move(prompt), output});
    }
  }
  return conversations;
}

std::vector<Conversation> make_conversations(const RepeatedPrefixes& set, const PromptSource& source, int count,
                                             uint64_t seed) {
  Random random(seed);
  std::vector<json::value> prefixes;
  for (int idx = 0; idx < set.num_prefixes; idx++) prefixes.push_back(random_prompt(random, source, set.prefix_len));
  std::vector<Conversation> conversations;
  for (int idx = 0; idx < count; idx++)
    conversations.push_back(
        {{joined(prefixes[static_cast<size_t>(idx % set.num_prefixes)], random_prompt(random, source, set.suffix_len)),
          set.output_len}});
  std::ranges::shuffle(conversations, random);
  return conversations;
}

namespace {

Result<Conversation> read_line(const std::string& line, const std::string& place, const PromptFile& file) {
  ASSIGN_OR_RETURN(const json::object object, parse_json_object(line, place));
  std::string prompt;
  int output = kDefaultOutput;
  JsonKeys keys(object, place);
  if (!keys.find("prompt")) keys.miss("prompt");
  keys.optional("prompt", prompt);
  keys.optional("output_tokens", output, 1, 1e9);
  RETURN_IF_ERROR(keys.status());
  return Conversation{{json::string(prompt), file.output_len > 0 ? file.output_len : output}};
}

int num_words(std::string_view text) {
  int count = 0;
  bool in_word = false;
  for (const char byte : text) {
    const bool is_blank = byte == ' ' || byte == '\n' || byte == '\t';
    count += !is_blank && !in_word;
    in_word = !is_blank;
  }
  return count;
}

// Questions with their answers' lengths; nothing if there is no question that was answered.
Result<Conversation> read_share_gpt(const json::value& entry, const std::string& place, const PromptFile& file,
                                    const PromptSource& source) {
  const auto wrong = [&] {
    return make_error(ErrorCode::kInvalidArgument,
                      R"({}: is no {{"conversations": [{{"from": "human", "value": "..."}}, ...]}})", place);
  };
  const json::object* object = entry.if_object();
  const json::value* said = object ? object->if_contains("conversations") : nullptr;
  if (!said || !said->is_array()) return wrong();
  Conversation conversation;
  const json::array& turns = said->get_array();
  for (size_t idx = 0; idx + 1 < turns.size() && std::ssize(conversation) < file.num_turns; idx += 2) {
    const json::string* const question = openai::find_text(turns[idx], "/value");
    const json::string* const answer = openai::find_text(turns[idx + 1], "/value");
    if (!question || !answer) return wrong();
    const int output = std::max(1, static_cast<int>(num_words(*answer) * source.tokens_per_word));
    conversation.push_back({*question, file.output_len > 0 ? file.output_len : output});
  }
  return conversation;
}

}  // namespace

Result<std::vector<Conversation>> read_conversations(const PromptFile& file, const PromptSource& source, int count,
                                                     uint64_t seed) {
  ASSIGN_OR_RETURN(const std::string text, read_file(file.path, kMostFileBytes));
  std::vector<Conversation> all;
  if (file.form == PromptFile::Form::kLines) {
    std::istringstream lines(text);
    std::string line;
    for (int number = 1; std::getline(lines, line); number++) {
      if (line.find_first_not_of(" \t\r") == line.npos) continue;
      ASSIGN_OR_RETURN(Conversation conversation, read_line(line, fmt::format("{}:{}", file.path, number), file));
      all.push_back(std::move(conversation));
    }
  } else {
    ASSIGN_OR_RETURN(const json::value value, parse_json(text, file.path));
    if (!value.is_array())
      return make_error(ErrorCode::kInvalidArgument, "{}: holds no list of conversations", file.path);
    for (size_t idx = 0; idx < value.get_array().size(); idx++) {
      ASSIGN_OR_RETURN(
          Conversation conversation,
          read_share_gpt(value.get_array()[idx], fmt::format("{}: entry {}", file.path, idx), file, source));
      if (!conversation.empty()) all.push_back(std::move(conversation));
    }
  }
  if (all.empty()) return make_error(ErrorCode::kInvalidArgument, "{}: holds no prompts", file.path);
  Random random(seed);
  std::ranges::shuffle(all, random);
  const size_t num_read = all.size();
  for (size_t idx = num_read; idx < static_cast<size_t>(count); idx++) all.push_back(Conversation(all[idx % num_read]));
  all.resize(static_cast<size_t>(count));
  return all;
}

}  // namespace cachalot
