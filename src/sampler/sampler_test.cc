#include "sampler/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <random>
#include <set>

namespace cachalot {
namespace {

// Known answers of the authors' own Random123 distribution (kat_vectors).
TEST(Philox, GivesTheKnownAnswers) {
  using Words = std::array<uint32_t, 4>;
  EXPECT_EQ(philox4x32({0, 0, 0, 0}, {0, 0}), (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox4x32({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}), (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Philox, EveryPartOfTheKeyMatters) {
  const double base = uniform_at(1, 0, 5, 0);
  EXPECT_EQ(uniform_at(1, 0, 5, 0), base);
  EXPECT_NE(uniform_at(2, 0, 5, 0), base);
  EXPECT_NE(uniform_at(1ull << 32 | 1, 0, 5, 0), base);
  EXPECT_NE(uniform_at(1, 1, 5, 0), base);
  EXPECT_NE(uniform_at(1, 0, 6, 0), base);
  EXPECT_NE(uniform_at(1, 0, 1ull << 32 | 5, 0), base);
  EXPECT_NE(uniform_at(1, 0, 5, 1), base);
}

TEST(Philox, FillsTheUnitIntervalEvenly) {
  constexpr int kBins = 64, kDraws = 64'000;
  std::array<int, kBins> counts{};
  for (int position = 0; position < kDraws; position++) {
    const double value = uniform_at(42, 0, position, 0);
    ASSERT_GE(value, 0.0);
    ASSERT_LT(value, 1.0);
    counts[static_cast<int>(value * kBins)]++;
  }
  double chi_squared = 0;
  for (const int count : counts) chi_squared += (count - 1000.0) * (count - 1000.0) / 1000.0;
  EXPECT_LT(chi_squared, 103.4);  // 63 degrees of freedom, p = 0.001
}

struct Case {
  std::vector<float> logits;
  std::vector<TokenId> tokens = {0};
  int num_prompt_tokens = 1;
  SamplingParams sampling;
  TokenConstraint* constraint = nullptr;

  int vocab_size() const { return static_cast<int>(logits.size()); }
  SamplingInput input() const {
    return {.logits = View<const float, 1>(logits.data(), vocab_size()),
            .tokens = tokens,
            .num_prompt_tokens = num_prompt_tokens,
            .sampling = &sampling,
            .constraint = constraint};
  }
  Result<SampledToken> sample() const { return Sampler(vocab_size()).sample(input()); }
  TokenId token() const { return sample().value().token; }
};

Case greedy(std::vector<float> logits) {
  Case result{.logits = std::move(logits)};
  result.sampling.temperature = 0;
  return result;
}

Case random_case(int vocab_size, float deviation, uint32_t seed) {
  Case result;
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.f, deviation);
  for (int token = 0; token < vocab_size; token++) result.logits.push_back(normal(random));
  return result;
}

// The rules in double and with a full sort: the probabilities of all tokens.
std::vector<double> reference_probabilities(const Case& example) {
  const SamplingParams& sampling = example.sampling;
  std::vector<double> logits(example.logits.begin(), example.logits.end());
  const int num_generated = static_cast<int>(example.tokens.size()) - example.num_prompt_tokens;
  if (num_generated < sampling.min_tokens)
    for (const TokenId token : sampling.stop_token_ids) logits[token] = -kInfinity;
  for (const auto& [token, bias] : sampling.logit_bias) logits[token] += bias;
  const std::set<TokenId> seen(example.tokens.begin(), example.tokens.end());
  for (const TokenId token : seen)
    logits[token] *= logits[token] > 0 ? 1.0 / sampling.repetition_penalty : sampling.repetition_penalty;
  std::map<TokenId, int> generated;
  for (int idx = example.num_prompt_tokens; idx < static_cast<int>(example.tokens.size()); idx++)
    generated[example.tokens[idx]]++;
  for (const auto& [token, count] : generated)
    logits[token] -= sampling.frequency_penalty * count + sampling.presence_penalty;

  std::vector<int> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, [&](int left, int right) { return logits[left] > logits[right]; });
  std::vector<double> weights(logits.size());
  for (size_t token = 0; token < logits.size(); token++)
    weights[token] = std::exp((logits[token] - logits[order[0]]) / sampling.temperature);
  const size_t top_k = sampling.top_k > 0 ? sampling.top_k : logits.size();
  for (size_t idx = 0; idx < order.size(); idx++)
    if (weights[order[idx]] < sampling.min_p || idx >= top_k) weights[order[idx]] = 0;
  const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
  double before = 0, kept = 0;
  for (const int token : order) {
    const double weight = weights[token];
    if (before >= sampling.top_p * sum) weights[token] = 0;
    before += weight;
    kept += weights[token];
  }
  for (double& weight : weights) weight /= kept;
  return weights;
}

// Draws at many positions and compares the frequencies: nothing that has no probability, and chi squared for the rest.
void expect_frequencies(Case example, int num_draws) {
  const std::vector<double> probabilities = reference_probabilities(example);
  std::vector<int> counts(probabilities.size());
  Sampler sampler(example.vocab_size());
  for (int draw = 0; draw < num_draws; draw++) {
    example.sampling.seed = draw;
    counts[sampler.sample(example.input()).value().token]++;
  }
  double chi_squared = 0, rare = 0;
  int num_bins = 0, num_rare = 0;
  for (size_t token = 0; token < counts.size(); token++) {
    const double expected = probabilities[token] * num_draws;
    if (expected == 0) {
      ASSERT_EQ(counts[token], 0) << "token " << token << " has no probability";
    } else if (expected < 10) {
      rare += expected, num_rare += counts[token];
    } else {
      chi_squared += (counts[token] - expected) * (counts[token] - expected) / expected;
      num_bins++;
    }
  }
  if (rare >= 10) chi_squared += (num_rare - rare) * (num_rare - rare) / rare, num_bins++;
  const double freedom = std::max(num_bins - 1, 1);
  EXPECT_LT(chi_squared, freedom + 4 * std::sqrt(2 * freedom) + 4) << num_bins << " bins";
}

TEST(Sampler, GreedyTakesTheLowestIdOfEquals) {
  EXPECT_EQ(greedy({1, 5, 3, 5}).token(), 1);
  EXPECT_EQ(greedy(std::vector<float>(1000, 2.f)).token(), 0);
}

TEST(Sampler, ATinyTemperatureIsGreedy) {
  Case example = greedy({1, 5, 5});
  example.sampling.temperature = 1e-6f;
  EXPECT_EQ(example.token(), 1);
}

TEST(Sampler, TopKOfOneIsGreedyAlsoAmongEquals) {
  Case example{.logits = {1, 5, 3, 5}};
  example.sampling.top_k = 1;
  for (example.sampling.seed = 0; example.sampling.seed < 50; example.sampling.seed++) EXPECT_EQ(example.token(), 1);
}

TEST(Sampler, TinyTopPAndMinPOfOneLeaveTheLikeliest) {
  for (const bool by_top_p : {true, false}) {
    Case example{.logits = {1, 3, 5, 4.9f}};
    by_top_p ? example.sampling.top_p = 1e-6f : example.sampling.min_p = 1.f;
    for (example.sampling.seed = 0; example.sampling.seed < 50; example.sampling.seed++) EXPECT_EQ(example.token(), 2);
  }
}

TEST(Sampler, DrawsByTheSoftmaxAtAnyTemperature) {
  for (const float temperature : {0.3f, 1.f, 2.5f}) {
    Case example = random_case(300, 2.f, 1);
    example.sampling.temperature = temperature;
    expect_frequencies(example, 20'000);
  }
}

TEST(Sampler, DrawsFromTheTopK) {
  for (const int top_k : {2, 7, 250, 299, 1000}) {
    Case example = random_case(300, 1.f, 2);
    example.sampling.top_k = top_k;
    expect_frequencies(example, 20'000);
  }
}

TEST(Sampler, DrawsFromTheNucleus) {
  for (const float top_p : {0.05f, 0.5f, 0.95f}) {
    for (const float deviation : {0.2f, 4.f}) {
      Case example = random_case(300, deviation, 3);
      example.sampling.top_p = top_p;
      expect_frequencies(example, 20'000);
    }
  }
}

TEST(Sampler, DrawsAboveMinP) {
  Case example = random_case(300, 2.f, 4);
  example.sampling.min_p = 0.1f;
  example.sampling.temperature = 1.5f;
  expect_frequencies(example, 20'000);
}

TEST(Sampler, AppliesMinPThenTopKThenTopP) {
  Case example = random_case(300, 1.f, 5);
  example.sampling.min_p = 0.02f;
  example.sampling.top_k = 40;
  example.sampling.top_p = 0.8f;
  example.sampling.temperature = 1.3f;
  expect_frequencies(example, 20'000);
}

TEST(Sampler, CutsEqualsInTheOrderOfIds) {
  Case example{.logits = std::vector<float>(200, 1.f)};
  example.sampling.top_k = 10;
  expect_frequencies(example, 2'000);
  example.sampling.top_k = 0;
  example.sampling.top_p = 0.5f;
  expect_frequencies(example, 20'000);
}

TEST(Sampler, AppliesPenaltiesBiasAndMinTokensTogether) {
  Case example = random_case(40, 2.f, 6);
  example.tokens = {1, 2, 3, 3, 4, 5, 5, 5, 1};
  example.num_prompt_tokens = 4;
  example.sampling.repetition_penalty = 1.3f;
  example.sampling.frequency_penalty = 0.4f;
  example.sampling.presence_penalty = -0.6f;
  example.sampling.logit_bias = {{5, 2.5f}, {7, -100.f}, {8, 1.f}};
  example.sampling.min_tokens = 6;
  example.sampling.stop_token_ids = {8, 9};
  expect_frequencies(example, 20'000);
}

TEST(Sampler, RepetitionPenaltyCountsThePromptTheOthersDoNot) {
  Case example = greedy({3, 2.9f, 0});
  example.tokens = {0, 0, 0};
  example.num_prompt_tokens = 3;
  example.sampling.presence_penalty = 1;
  example.sampling.frequency_penalty = 1;
  EXPECT_EQ(example.token(), 0);
  example.sampling.repetition_penalty = 1.1f;
  EXPECT_EQ(example.token(), 1);
}

TEST(Sampler, RepetitionPenaltyLowersNegativeLogitsToo) {
  Case example = greedy({-1.f, -1.1f});
  example.sampling.repetition_penalty = 1.2f;
  EXPECT_EQ(example.token(), 1);
}

TEST(Sampler, FrequencyPenaltyGrowsWithTheCount) {
  Case example = greedy({2.5f, 1});
  example.tokens = {1, 0};
  example.sampling.frequency_penalty = 1;
  EXPECT_EQ(example.token(), 0);
  example.tokens = {1, 0, 0};
  EXPECT_EQ(example.token(), 1);
}

TEST(Sampler, StopIdsComeOnlyAfterMinTokens) {
  Case example = greedy({1, 9, 2});
  example.sampling.stop_token_ids = {1};
  example.sampling.min_tokens = 2;
  example.tokens = {0, 2};
  EXPECT_EQ(example.token(), 2);
  example.tokens = {0, 2, 2};
  EXPECT_EQ(example.token(), 1);
}

TEST(Sampler, RemembersNothingOfTheSequenceBefore) {
  Case first = random_case(500, 1.f, 7), second = random_case(500, 1.f, 8);
  first.tokens = {3, 4, 5, 6};
  first.sampling.repetition_penalty = 5.f;
  first.sampling.top_p = 0.3f;
  second.tokens = {7, 8, 9};
  second.sampling.frequency_penalty = 2.f;
  second.sampling.repetition_penalty = 1.5f;
  second.sampling.num_logprobs = 3;
  const SampledToken alone = second.sample().value();
  Sampler sampler(500);
  ASSERT_TRUE(sampler.sample(first.input()));
  const SampledToken after = sampler.sample(second.input()).value();
  EXPECT_EQ(after.token, alone.token);
  EXPECT_EQ(after.logprob, alone.logprob);
}

TEST(Sampler, TheDrawIsKeyedBySeedChoiceAndPositionAlone) {
  Case example{.logits = std::vector<float>(10'000, 0.f)};
  const TokenId token = example.token();
  EXPECT_EQ(example.token(), token);
  example.tokens = {7};  // another token at the same position
  EXPECT_EQ(example.token(), token);
  example.sampling.choice = 1;
  EXPECT_NE(example.token(), token);
  example.sampling.choice = 0;
  example.sampling.seed = 1;
  EXPECT_NE(example.token(), token);
  example.sampling.seed = 0;
  example.tokens = {0, 0};
  EXPECT_NE(example.token(), token);
}

// Fixed once and for all: a change of these is a change of every seeded answer.
TEST(Sampler, SeededDrawsStayTheSame) {
  Case example{.logits = {0.1f, 0.2f, 0.3f, 0.4f, 0.5f, 0.6f, 0.7f, 0.8f, 0.9f, 1.f}};
  example.sampling.top_p = 0.9f;
  std::vector<TokenId> drawn;
  for (example.sampling.seed = 0; example.sampling.seed < 12; example.sampling.seed++) drawn.push_back(example.token());
  EXPECT_EQ(drawn, (std::vector<TokenId>{4, 9, 3, 6, 6, 2, 2, 8, 5, 6, 6, 7}));
}

TEST(Sampler, LogprobsAreThoseOfTheRawLogits) {
  Case example = greedy({1, 4, 2, 3});
  example.sampling.logit_bias = {{2, 100.f}};
  example.sampling.temperature = 0.5f;
  example.sampling.num_logprobs = 2;
  const SampledToken sampled = example.sample().value();
  const double log_sum = std::log(std::exp(1.0) + std::exp(2.0) + std::exp(3.0) + std::exp(4.0));
  EXPECT_EQ(sampled.token, 2);
  EXPECT_NEAR(sampled.logprob, 2 - log_sum, 1e-6);
  EXPECT_EQ(sampled.rank, 3);
  ASSERT_EQ(sampled.top.size(), 2u);
  EXPECT_EQ(sampled.top[0].token, 1);
  EXPECT_EQ(sampled.top[0].rank, 1);
  EXPECT_NEAR(sampled.top[0].logprob, 4 - log_sum, 1e-6);
  EXPECT_EQ(sampled.top[1].token, 3);
  EXPECT_EQ(sampled.top[1].rank, 2);
}

TEST(Sampler, LogprobsOfAWholeVocabularyAreExact) {
  Case example = random_case(129'280, 3.f, 10);
  Sampler sampler(example.vocab_size());
  double sum = 0;
  for (const float logit : example.logits) sum += std::exp(static_cast<double>(logit));
  for (const TokenId token : {0, 77, 129'279}) {
    const SampledToken described = sampler.describe(example.input().logits, token, 20).value();
    EXPECT_NEAR(described.logprob, example.logits[token] - std::log(sum), 2e-6);
    EXPECT_EQ(described.top.size(), 20u);
    const auto larger =
        std::ranges::count_if(example.logits, [&](float logit) { return logit > example.logits[token]; });
    EXPECT_EQ(described.rank, larger + 1);
  }
}

TEST(Sampler, LogprobsComeOnlyWhenAskedFor) {
  Case example = greedy({1, 2});
  EXPECT_EQ(example.sample().value().rank, 0);
  example.sampling.num_logprobs = 0;
  const SampledToken sampled = example.sample().value();
  EXPECT_EQ(sampled.rank, 1);
  EXPECT_LT(sampled.logprob, 0);
  EXPECT_TRUE(sampled.top.empty());
}

TEST(Sampler, LogitsThatAreNoNumbersAreThatSequencesError) {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), kInfinity}) {
    Case example = greedy(std::vector<float>(300, 0.f));
    example.logits[299] = bad;
    Sampler sampler(300);
    const Result<SampledToken> result = sampler.sample(example.input());
    ASSERT_FALSE(result);
    EXPECT_NE(result.error().message.find("not numbers"), std::string::npos) << result.error().message;
    example.logits[299] = 1.f;
    EXPECT_EQ(sampler.sample(example.input()).value().token, 299);
  }
}

TEST(Sampler, ABiasOutsideTheVocabularyIsRefusedByName) {
  Case example = greedy({1, 2});
  example.sampling.logit_bias = {{2, 1.f}};
  const Result<SampledToken> result = example.sample();
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().parameter, "logit_bias");
}

TEST(Sampler, BadWordsAreNeverCompleted) {
  Case example = greedy({1, 2, 3, 4});
  example.sampling.bad_words = {{3}};
  EXPECT_EQ(example.token(), 2);
  example.sampling.bad_words = {{1, 2, 3}};
  EXPECT_EQ(example.token(), 3) << "nothing was generated";
  example.tokens = {0, 1, 2};
  EXPECT_EQ(example.token(), 2);
  example.num_prompt_tokens = 2;
  EXPECT_EQ(example.token(), 3) << "a part of it stands in the prompt";
  // What a round has sampled counts too.
  const std::vector<TokenId> newer = {2};
  example.tokens = {0, 1};
  example.num_prompt_tokens = 1;
  SamplingInput input = example.input();
  input.newer = newer;
  EXPECT_EQ(Sampler(4).sample(input)->token, 2);
}

TEST(Sampler, OnlyAllowedTokensCome) {
  Case example = greedy({5, 2, 3, 4});
  example.sampling.allowed_token_ids = {1, 2};
  EXPECT_EQ(example.token(), 2);
  example.sampling.bad_words = {{2}};
  EXPECT_EQ(example.token(), 1);
  example.sampling.bad_words = {{2}, {1}};
  EXPECT_THAT(example.sample().error().message, testing::HasSubstr("no token"));
}

// Allows the multiples of `step`.
class EveryNth : public TokenConstraint {
 public:
  explicit EveryNth(int step) : step_(step) {}
  Status fill_mask(std::span<uint32_t> mask) override {
    if (step_ == 0) return make_error(ErrorCode::kInternal, "the grammar is broken");
    for (size_t token = 0; token < mask.size() * 32; token++)
      if (token % step_ != 0) mask[token / 32] &= ~(1u << token % 32);
    return {};
  }
  Status accept(TokenId token) override {
    accepted.push_back(token);
    return {};
  }
  void rollback(int num_tokens) override { accepted.resize(static_cast<size_t>(num_tokens)); }
  std::vector<TokenId> accepted;

 private:
  size_t step_;
};

TEST(Sampler, TheConstraintMasksAndAccepts) {
  Case example = random_case(1001, 1.f, 11);
  EveryNth constraint(50);
  example.constraint = &constraint;
  std::vector<TokenId> drawn;
  for (int idx = 0; idx < 100; idx++) {
    example.sampling.seed = idx;
    drawn.push_back(example.token());
    EXPECT_EQ(drawn.back() % 50, 0);
  }
  EXPECT_EQ(constraint.accepted, drawn);
}

TEST(Sampler, ABrokenConstraintOrNothingAllowedIsAnError) {
  Case example = greedy({1, 2, 3});
  EveryNth broken(0);
  example.constraint = &broken;
  EXPECT_EQ(example.sample().error().message, "the grammar is broken");
  example.constraint = nullptr;
  example.sampling.logit_bias = {{1, -kInfinity}, {2, -kInfinity}};
  example.sampling.stop_token_ids = {0};
  example.sampling.min_tokens = 5;
  EXPECT_NE(example.sample().error().message.find("no token"), std::string::npos);
}

}  // namespace

}  // namespace cachalot
