#include "openai/logprobs.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json/array.hpp>

#include "base/text.h"

namespace cachalot::openai {

namespace json = boost::json;

namespace {

// JSON has no infinity; vLLM writes the logarithm of nothing so.
double finite(float logprob) {
  return std::max(static_cast<double>(logprob), -9999.0);
}

std::string id_text(TokenId token) {
  return fmt::format("token_id:{}", token);
}

// A token's text; one that is not whole characters is written "bytes:\xe4\xbd", as OpenAI does in completions.
std::string completion_text(const LogprobsStyle& style, TokenId token) {
  if (style.tokens_as_ids) return id_text(token);
  const std::string_view bytes = style.tokenizer.token_bytes(token, false);
  std::string text = to_valid_utf8(bytes);
  if (text == bytes) return text;
  text = "bytes:";
  for (const char byte : bytes) text += fmt::format("\\x{:02x}", static_cast<unsigned char>(byte));
  return text;
}

// That begin in these bytes: of a character over several tokens, the first has it.
int num_characters(std::string_view text) {
  return static_cast<int>(
      std::ranges::count_if(text, [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
}

json::object chat_token(const LogprobsStyle& style, TokenId token, float logprob) {
  const std::string_view bytes = style.tokenizer.token_bytes(token, false);
  json::array byte_list;
  byte_list.reserve(bytes.size());
  for (const char byte : bytes) byte_list.emplace_back(static_cast<unsigned char>(byte));
  return {{"token", style.tokens_as_ids ? id_text(token) : to_valid_utf8(bytes)},
          {"logprob", finite(logprob)},
          {"bytes", std::move(byte_list)}};
}

std::span<const TokenLogprob> first(const std::vector<TokenLogprob>& top, int count) {
  return std::span(top).first(std::min(top.size(), static_cast<size_t>(count)));
}

}  // namespace

json::object completion_logprobs(const LogprobsStyle& style, std::span<const ReportedToken> tokens, int num_top,
                                 int& text_offset) {
  json::array offsets, logprobs, texts, tops;
  for (const ReportedToken& reported : tokens) {
    const SampledToken& sampled = reported.sampled;
    const std::string text = completion_text(style, sampled.token);
    offsets.emplace_back(text_offset);
    if (reported.is_in_text) text_offset += num_characters(style.tokenizer.token_bytes(sampled.token, false));
    if (reported.has_logprob) {
      logprobs.emplace_back(finite(sampled.logprob));
      json::object top;
      for (const TokenLogprob& other : first(sampled.top, num_top)) {
        // Two ids with one text: the likelier one stands.
        top.emplace(completion_text(style, other.token), finite(other.logprob));
      }
      top.emplace(text, finite(sampled.logprob));
      tops.push_back(std::move(top));
    } else {
      logprobs.emplace_back(nullptr);
      tops.emplace_back(nullptr);
    }
    texts.emplace_back(text);
  }
  return {{"text_offset", std::move(offsets)},
          {"token_logprobs", std::move(logprobs)},
          {"tokens", std::move(texts)},
          {"top_logprobs", std::move(tops)}};
}

json::object chat_logprobs(const LogprobsStyle& style, std::span<const ReportedToken> tokens, int num_top) {
  json::array content;
  for (const ReportedToken& reported : tokens) {
    const SampledToken& sampled = reported.sampled;
    json::object token = chat_token(style, sampled.token, sampled.logprob);
    json::array top;
    for (const TokenLogprob& other : first(sampled.top, num_top))
      top.push_back(chat_token(style, other.token, other.logprob));
    token["top_logprobs"] = std::move(top);
    content.push_back(std::move(token));
  }
  return {{"content", std::move(content)}};
}

json::array prompt_logprobs(const LogprobsStyle& style, std::span<const ReportedToken> tokens) {
  json::array list;
  for (const ReportedToken& reported : tokens) {
    if (!reported.has_logprob) {
      list.emplace_back(nullptr);
      continue;
    }
    const SampledToken& sampled = reported.sampled;
    json::object entry;
    const auto add = [&](TokenId token, float logprob, int rank) {
      entry.emplace(std::to_string(token),
                    json::object{{"logprob", finite(logprob)},
                                 {"rank", rank},
                                 {"decoded_token", to_valid_utf8(style.tokenizer.token_bytes(token, false))}});
    };
    add(sampled.token, sampled.logprob, sampled.rank);
    for (const TokenLogprob& other : sampled.top) add(other.token, other.logprob, other.rank);
    list.push_back(std::move(entry));
  }
  return list;
}

}  // namespace cachalot::openai
