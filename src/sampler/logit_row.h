#pragma once

#include <limits>
#include <span>
#include <vector>

#include "core/types.h"

namespace cachalot {

inline constexpr float kInfinity = std::numeric_limits<float>::infinity();

// A token's place in the one order of tokens: by logit, equals by id.
struct RankedToken {
  float logit = 0.f;
  TokenId token = 0;
};
inline bool is_likelier(const RankedToken& left, const RankedToken& right) {
  return left.logit != right.logit ? left.logit > right.logit : left.token < right.token;
}

// Every token that is allowed at all.
inline constexpr RankedToken kLastOfAll = {std::numeric_limits<float>::lowest(), std::numeric_limits<TokenId>::max()};

// exp(x) of x <= 0 within 2 units in the last place; 0 below -87. Plain additions and multiplications in a fixed order,
// so that every machine gets the same bits, which the C library does not promise.
float exp_of_nonpositive(float x);

// Passes over one row of logits: what the rules of sampling ask of a vocabulary. The first pass keeps the maximum of
// each block, which lets later ones skip nearly all blocks. With 129,280 tokens on one core the first takes 23
// microseconds, a sum over all 150.
class LogitRow {
 public:
  static constexpr int kBlock = 128;

  // Later calls allocate nothing for rows up to this size.
  void reserve(int vocab_size);

  // Reads the whole row, which is borrowed until the next call.
  void assign(std::span<const float> logits);

  float maximum() const { return maximum_; }  // NaN if any logit is NaN
  TokenId argmax() const;
  RankedToken at(TokenId token) const { return {logits_[token], token}; }
  int rank(TokenId token) const;  // 1: the likeliest

  // The `count` likeliest, in order; fewer if no more are allowed (logit above -infinity).
  const std::vector<RankedToken>& likeliest(int count);

  // The sum of the weights exp((logit - maximum) * scale) of all tokens from the likeliest to `last`, inclusive.
  double weight_sum(float scale, const RankedToken& last);
  // Of the tokens of the latest weight_sum(): the first at which the running sum in the order of ids exceeds `target`,
  // which is less than that sum.
  TokenId at_running_sum(double target) const;

 private:
  int num_blocks() const { return static_cast<int>(block_maxima_.size()); }
  // A block as the passes see it: kBlock logits, of which those below `bound` do not count.
  struct Block {
    const float* logits;
    float bound;
  };
  Block block_down_to(const RankedToken& last, int block, float (&copy)[kBlock]) const;

  std::span<const float> logits_;
  float maximum_ = 0.f;
  std::vector<float> block_maxima_;
  // Of the latest weight_sum().
  float scale_ = 0.f;
  RankedToken last_;
  std::vector<float> block_sums_;

  std::vector<float> maxima_by_size_;
  std::vector<RankedToken> likeliest_;
};

}  // namespace cachalot
