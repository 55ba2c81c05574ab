#include "openai/logprobs.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/text.h"
#include "config/json_text.h"

namespace cachalot::openai {

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

void append_chat_token(const LogprobsStyle& style, TokenId token, float logprob, JsonPieces& object) {
  const std::string_view bytes = style.tokenizer.token_bytes(token, false);
  append_json_string(style.tokens_as_ids ? id_text(token) : to_valid_utf8(bytes), object.next("token"));
  append_json_number(finite(logprob), object.next("logprob"));
  JsonPieces list(object.next("bytes"), "[]");
  for (const char byte : bytes) fmt::format_to(std::back_inserter(list.next()), "{}", static_cast<unsigned char>(byte));
  list.end();
}

std::span<const TokenLogprob> first(const std::vector<TokenLogprob>& top, int count) {
  return std::span(top).first(std::min(top.size(), static_cast<size_t>(count)));
}

}  // namespace

void append_completion_logprobs(const LogprobsStyle& style, std::span<const ReportedToken> tokens, int num_top,
                                int& text_offset, std::string& text) {
  std::string texts_text, tops_text, offsets_text;
  JsonPieces texts(texts_text, "[]"), tops(tops_text, "[]"), offsets(offsets_text, "[]");
  JsonPieces lists(text, "{}");
  JsonPieces logprobs(lists.next("token_logprobs"), "[]");
  for (const ReportedToken& reported : tokens) {
    const SampledToken& sampled = reported.sampled;
    const std::string token = completion_text(style, sampled.token);
    append_json_string(token, texts.next());
    fmt::format_to(std::back_inserter(offsets.next()), "{}", text_offset);
    if (reported.is_in_text) text_offset += num_characters(style.tokenizer.token_bytes(sampled.token, false));
    if (!reported.has_logprob) {
      logprobs.next() += "null";
      tops.next() += "null";
      continue;
    }
    append_json_number(finite(sampled.logprob), logprobs.next());
    JsonPieces top(tops.next(), "{}");
    std::vector<std::string> written;
    const auto add = [&](std::string other, float logprob) {
      // Two ids with one text: the likelier one stands.
      if (std::ranges::find(written, other) != written.end()) return;
      append_json_number(finite(logprob), top.next(other));
      written.push_back(std::move(other));
    };
    for (const TokenLogprob& other : first(sampled.top, num_top))
      add(completion_text(style, other.token), other.logprob);
    add(token, sampled.logprob);
    top.end();
  }
  logprobs.end(), texts.end(), tops.end(), offsets.end();
  lists.next("text_offset") += offsets_text;
  lists.next("tokens") += texts_text;
  lists.next("top_logprobs") += tops_text;
  lists.end();
}

void append_chat_logprobs(const LogprobsStyle& style, std::span<const ReportedToken> tokens, int num_top,
                          std::string& text) {
  JsonPieces object(text, "{}");
  JsonPieces content(object.next("content"), "[]");
  for (const ReportedToken& reported : tokens) {
    const SampledToken& sampled = reported.sampled;
    JsonPieces token(content.next(), "{}");
    append_chat_token(style, sampled.token, sampled.logprob, token);
    JsonPieces list(token.next("top_logprobs"), "[]");
    for (const TokenLogprob& other : first(sampled.top, num_top)) {
      JsonPieces alternative(list.next(), "{}");
      append_chat_token(style, other.token, other.logprob, alternative);
      alternative.end();
    }
    list.end();
    token.end();
  }
  content.end();
  object.end();
}

void append_prompt_logprobs(const LogprobsStyle& style, std::span<const ReportedToken> tokens, std::string& text) {
  JsonPieces list(text, "[]");
  for (const ReportedToken& reported : tokens) {
    if (!reported.has_logprob) {
      list.next() += "null";
      continue;
    }
    const SampledToken& sampled = reported.sampled;
    JsonPieces entry(list.next(), "{}");
    const auto add = [&](TokenId token, float logprob, int rank) {
      JsonPieces object(entry.next(std::to_string(token)), "{}");
      append_json_number(finite(logprob), object.next("logprob"));
      object.add("rank", rank);
      append_json_string(style.tokenizer.token_bytes(token, false), object.next("decoded_token"));
      object.end();
    };
    add(sampled.token, sampled.logprob, sampled.rank);
    for (const TokenLogprob& other : sampled.top)
      if (other.token != sampled.token) add(other.token, other.logprob, other.rank);
    entry.end();
  }
  list.end();
}

}  // namespace cachalot::openai
