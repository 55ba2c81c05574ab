#include "sampler/sampler.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "base/math.h"

namespace cachalot {
namespace {

constexpr float kGreedyBelow = 1e-5f;  // vLLM takes lower temperatures for 0

bool needs_adjusting(const SamplingInput& input) {
  const SamplingParams& sampling = *input.sampling;
  return input.num_generated() < sampling.min_tokens || !sampling.logit_bias.empty() ||
         sampling.repetition_penalty != 1.f || sampling.presence_penalty != 0.f || sampling.frequency_penalty != 0.f ||
         !sampling.allowed_token_ids.empty() || !sampling.bad_words.empty() || input.constraint;
}

// Whether what was generated ends with these.
bool has_generated(const SamplingInput& input, std::span<const TokenId> tokens) {
  if (static_cast<int>(tokens.size()) > input.num_generated()) return false;
  const size_t num_newer = std::min(tokens.size(), input.newer.size()), num_older = tokens.size() - num_newer;
  return std::ranges::equal(tokens.first(num_older),
                            input.tokens.subspan(input.tokens.size() - num_older, num_older)) &&
         std::ranges::equal(tokens.last(num_newer), input.newer.last(num_newer));
}

}  // namespace

Sampler::Sampler(int vocab_size)
    : vocab_size_(vocab_size), adjusted_(vocab_size), num_occurrences_(vocab_size), mask_((vocab_size + 31) / 32) {
  CHECK(vocab_size > 0);
  row_.reserve(vocab_size);
  occurring_.reserve(static_cast<size_t>(vocab_size));
}

Result<SampledToken> Sampler::sample(const SamplingInput& input) {
  const SamplingParams& sampling = *input.sampling;
  const std::span<const float> logits = checked_row(input.logits);
  if (needs_adjusting(input)) {
    RETURN_IF_ERROR(adjust(input));
    RETURN_IF_ERROR(assign(adjusted_));
  } else {
    RETURN_IF_ERROR(assign(logits));
  }
  SampledToken sampled{.token =
                           sampling.temperature < kGreedyBelow ? row_.argmax() : draw(sampling, input.num_tokens())};
  if (input.constraint) RETURN_IF_ERROR(input.constraint->accept(sampled.token));
  if (sampling.num_logprobs < 0) return sampled;
  return describe(input.logits, sampled.token, sampling.num_logprobs);
}

Result<SampledToken> Sampler::describe(View<const float, 1> logits, TokenId token, int num_logprobs) {
  const std::span<const float> row = checked_row(logits);
  CHECK(token >= 0 && token < vocab_size_, "token {} of a vocabulary of {}", token, vocab_size_);
  RETURN_IF_ERROR(assign(row));
  const double log_sum = row_.maximum() + portable::log(row_.weight_sum(1.f, kLastOfAll));
  const auto logprob = [&](float logit) { return static_cast<float>(logit - log_sum); };
  SampledToken described{.token = token, .logprob = logprob(row[token]), .rank = row_.rank(token)};
  if (num_logprobs <= 0) return described;

  described.top.reserve(static_cast<size_t>(std::min(num_logprobs, vocab_size_)));
  for (const RankedToken& likely : row_.likeliest(num_logprobs)) {
    const int rank = static_cast<int>(described.top.size()) + 1;
    described.top.push_back({.token = likely.token, .logprob = logprob(likely.logit), .rank = rank});
  }
  return described;
}

std::span<const float> Sampler::checked_row(View<const float, 1> logits) const {
  CHECK(logits.extent(0) == vocab_size_ && logits.stride(0) == 1, "sampler: {} logits of stride {}, vocab_size is {}",
        logits.extent(0), logits.stride(0), vocab_size_);
  return {logits.data(), static_cast<size_t>(vocab_size_)};
}

Status Sampler::assign(std::span<const float> logits) {
  row_.assign(logits);
  const float maximum = row_.maximum();
  if (maximum == -kInfinity)
    return make_error(ErrorCode::kInvalidArgument, "no token of {} is allowed to come next", vocab_size_);
  if (!std::isfinite(maximum))
    return make_error(ErrorCode::kInternal, "the model's logits are not numbers (largest: {})", maximum);
  return {};
}

Status Sampler::adjust(const SamplingInput& input) {
  const SamplingParams& sampling = *input.sampling;
  std::copy_n(input.logits.data(), vocab_size_, adjusted_.begin());
  if (input.num_generated() < sampling.min_tokens) {
    for (const TokenId token : sampling.stop_token_ids)
      if (token >= 0 && token < vocab_size_) adjusted_[token] = -kInfinity;
  }
  for (const auto& [token, bias] : sampling.logit_bias) {
    if (token < 0 || token >= vocab_size_)
      return make_parameter_error("logit_bias", "token {} is not in the vocabulary of {}", token, vocab_size_);
    adjusted_[token] += bias;
  }
  apply_penalties(input);
  forbid_tokens(input);
  if (input.constraint) RETURN_IF_ERROR(apply_constraint(*input.constraint));
  return {};
}

// Counts the tokens anew each time, a few microseconds per thousand, so that nothing has to follow a sequence around.
void Sampler::apply_penalties(const SamplingInput& input) {
  const SamplingParams& sampling = *input.sampling;
  const bool repetition = sampling.repetition_penalty != 1.f;
  if (!repetition && sampling.presence_penalty == 0.f && sampling.frequency_penalty == 0.f) return;

  // Of the generated tokens; in the prompt alone: kInPrompt.
  constexpr int32_t kInPrompt = std::numeric_limits<int32_t>::min();
  occurring_.clear();
  for (const std::span<const TokenId> generated : {input.tokens.subspan(input.num_prompt_tokens), input.newer}) {
    for (const TokenId token : generated)
      if (num_occurrences_[token]++ == 0) occurring_.push_back(token);
  }
  if (repetition) {
    for (const TokenId token : input.tokens.first(input.num_prompt_tokens)) {
      if (num_occurrences_[token] != 0) continue;
      num_occurrences_[token] = kInPrompt;
      occurring_.push_back(token);
    }
  }
  for (const TokenId token : occurring_) {
    float& logit = adjusted_[token];
    if (repetition) logit = logit > 0 ? logit / sampling.repetition_penalty : logit * sampling.repetition_penalty;
    const int32_t count = std::exchange(num_occurrences_[token], 0);
    if (count == kInPrompt) continue;
    logit -= sampling.frequency_penalty * static_cast<float>(count);
    logit -= sampling.presence_penalty;
  }
}

void Sampler::forbid_tokens(const SamplingInput& input) {
  const SamplingParams& sampling = *input.sampling;
  for (const std::vector<TokenId>& word : sampling.bad_words)
    if (has_generated(input, std::span(word).first(word.size() - 1))) adjusted_[word.back()] = -kInfinity;
  if (sampling.allowed_token_ids.empty()) return;
  std::ranges::fill(mask_, 0u);
  for (const TokenId token : sampling.allowed_token_ids) mask_[token / 32] |= 1u << token % 32;
  apply_mask();
}

void Sampler::apply_mask() {
  for (size_t word = 0; word < mask_.size(); ++word) {
    for (uint32_t forbidden = ~mask_[word]; forbidden != 0; forbidden &= forbidden - 1) {
      const size_t token = word * 32 + static_cast<size_t>(std::countr_zero(forbidden));
      if (token < adjusted_.size()) adjusted_[token] = -kInfinity;
    }
  }
}

Status Sampler::apply_constraint(TokenConstraint& constraint) {
  std::ranges::fill(mask_, ~0u);
  RETURN_IF_ERROR(constraint.fill_mask(mask_));
  apply_mask();
  return {};
}

TokenId Sampler::draw(const SamplingParams& sampling, uint64_t position) {
  const float scale = 1.f / sampling.temperature;
  RankedToken last = kLastOfAll;
  if (sampling.min_p > 0) {
    const auto log_min_p = static_cast<float>(portable::log(sampling.min_p));
    last.logit = std::max(last.logit, row_.maximum() + log_min_p * sampling.temperature);
  }
  if (sampling.top_k > 0 && sampling.top_k < vocab_size_)
    last = std::min(last, row_.likeliest(sampling.top_k).back(), is_likelier);
  double sum = row_.weight_sum(scale, last);

  // top_p by rejection, which no sort is needed for: a token belongs to the nucleus if those likelier than it do not
  // have its weight already. Else neither does any less likely one, and the draw is repeated among the likelier ones
  // alone.
  const double nucleus = sampling.top_p * sum;
  for (uint32_t attempt = 0;; attempt++) {
    const TokenId token = row_.at_running_sum(uniform_at(sampling.seed, sampling.choice, position, attempt) * sum);
    if (sampling.top_p >= 1) return token;
    sum = row_.weight_sum(scale, {row_.at(token).logit, token - 1});
    if (sum < nucleus || sum == 0) return token;
  }
}

uint64_t hash_of_draws() {
  constexpr int kVocabSize = 1000, kDraws = 64;
  std::vector<float> logits(kVocabSize);
  for (int token = 0; token < kVocabSize; token++)
    logits[static_cast<size_t>(token)] = 8 * static_cast<float>(uniform_at(1, 0, static_cast<uint64_t>(token), 0));
  SamplingParams sampling{.temperature = 0.8f, .top_p = 0.9f, .min_p = 0.01f, .num_logprobs = 0};
  std::vector<TokenId> tokens{0};
  Sampler sampler(kVocabSize);
  portable::BitHash hash;
  for (int draw = 0; draw < kDraws; draw++) {
    const auto sampled = sampler.sample({.logits = View<const float, 1>(logits.data(), kVocabSize),
                                         .tokens = tokens,
                                         .num_prompt_tokens = 1,
                                         .sampling = &sampling});
    CHECK(sampled.has_value());
    hash.add(static_cast<uint64_t>(sampled->token));
    hash.add(double{sampled->logprob});
    tokens.push_back(sampled->token);
  }
  return hash.value();
}

}  // namespace cachalot
