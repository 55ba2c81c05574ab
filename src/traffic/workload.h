#pragma once

#include <boost/json/value.hpp>
#include <cstdint>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "http/client.h"
#include "openai/api_address.h"

// What clients ask.
namespace cachalot {

struct Turn {
  boost::json::value prompt;  // a text, or a list of token ids
  int max_tokens = 0;
};
using Conversation = std::vector<Turn>;  // each turn is asked with what was said before it

// What random prompts are made of: token ids of a server, or, where it does not tell any, words.
struct PromptSource {
  std::vector<int> ids;
  double tokens_per_word = 1.3;
  bool as_text = false;  // a text though there are ids: chats take nothing else
};
// Asks the server how it cuts some words (vLLM's /tokenize). Blocks.
PromptSource ask_for_tokens(const http::Client& client, const openai::ApiAddress& address, const std::string& model);

// A count that each prompt draws anew: even over mean * (1 - spread) to mean * (1 + spread), rounded.
struct Length {
  int mean = 0;
  double spread = 0;  // [0, 1)
};

// vLLM's data set "random": every prompt begins with the same `prefix_len` tokens.
struct RandomPrompts {
  Length input{.mean = 1024}, output{.mean = 128};
  int prefix_len = 0;
  int num_turns = 1;  // each later one with a prompt of its own
};
// vLLM's "prefix_repetition": the prompts share a few prefixes.
struct RepeatedPrefixes {
  int prefix_len = 256, suffix_len = 256, num_prefixes = 10, output_len = 128;
};
std::vector<Conversation> make_conversations(const RandomPrompts& set, const PromptSource& source, int count,
                                             uint64_t seed);
std::vector<Conversation> make_conversations(const RepeatedPrefixes& set, const PromptSource& source, int count,
                                             uint64_t seed);

// A file of prompts, drawn from in random order, and again from the start if it has too few. Errors name file and line
// or entry.
struct PromptFile {
  std::string path;
  // kLines: {"prompt": "...", "output_tokens": 128} a line, vLLM's "custom". kShareGpt: a list of {"conversations":
  // [{"from": "human", "value": "..."}, ...]}.
  enum class Form { kLines, kShareGpt } form = Form::kLines;
  int output_len = 0;  // 0: what the file says; ShareGPT's answers have as many as their words make
  int num_turns = 1;   // of ShareGPT's conversations, at most
};
Result<std::vector<Conversation>> read_conversations(const PromptFile& file, const PromptSource& source, int count,
                                                     uint64_t seed);

}  // namespace cachalot
