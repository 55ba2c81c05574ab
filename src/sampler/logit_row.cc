#include "sampler/logit_row.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>

#include "base/error.h"
#include "base/math.h"

namespace cachalot {
namespace {

// Four floats at once on every machine; sums keep 16 partial sums, so that their order is the same on all of them.
using Lanes [[gnu::vector_size(16)]] = float;
using IntLanes [[gnu::vector_size(16)]] = int32_t;
constexpr int kLanes = 4;
constexpr int kStreams = 4;  // independent chains, to hide the latency of an addition

Lanes load(const float* values) {
  Lanes lanes;
  __builtin_memcpy(&lanes, values, sizeof(lanes));
  return lanes;
}

// exp(x) = 2^n exp(r), n the integer nearest to x / ln 2 and |r| <= ln(2) / 2: Taylor's polynomial of degree 7 is then
// within 1e-8. ln 2 is subtracted in two parts, the first of which has so few bits that n times it is exact.
Lanes exp_lanes(Lanes x) {
  constexpr float kLowest = -87.f, kRound = 12582912.f;  // 1.5 * 2^23: adding it rounds to an integer
  const IntLanes in_range = x >= kLowest;
  x = in_range ? x : Lanes{} + kLowest;
  const Lanes shifted = x * 1.44269504f + kRound;
  const Lanes n = shifted - kRound;
  const Lanes r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
  Lanes series = r * (1.f / 5040) + 1.f / 720;
  series = series * r + 1.f / 120;
  series = series * r + 1.f / 24;
  series = series * r + 1.f / 6;
  series = series * r + 0.5f;
  series = series * r + 1.f;
  series = series * r + 1.f;
  const IntLanes exponent = reinterpret_cast<IntLanes>(shifted) << 23;  // n, in the place of a float's exponent
  return reinterpret_cast<Lanes>((reinterpret_cast<IntLanes>(series) + exponent) & in_range);
}

// NaN if there is one.
float maximum_of(const float* block) {
  Lanes maxima[kStreams];
  IntLanes is_nan{};
  for (Lanes& lanes : maxima) lanes = Lanes{} - kInfinity;
  for (int idx = 0; idx < LogitRow::kBlock; idx += kLanes * kStreams) {
    for (int stream = 0; stream < kStreams; stream++) {
      const Lanes lanes = load(block + idx + stream * kLanes);
      maxima[stream] = lanes > maxima[stream] ? lanes : maxima[stream];
      is_nan |= lanes != lanes;
    }
  }
  float maximum = -kInfinity;
  for (int lane = 0; lane < kLanes; lane++) {
    if (is_nan[lane] != 0) return std::numeric_limits<float>::quiet_NaN();
    for (const Lanes& lanes : maxima) maximum = std::max(maximum, lanes[lane]);
  }
  return maximum;
}

// Of the logits that reach `bound`.
float weight_sum_of(const float* block, float bound, float maximum, float scale) {
  Lanes sums[kStreams] = {};
  for (int idx = 0; idx < LogitRow::kBlock; idx += kLanes * kStreams) {
    for (int stream = 0; stream < kStreams; stream++) {
      const Lanes logits = load(block + idx + stream * kLanes);
      const Lanes weights = exp_lanes((logits - maximum) * scale);
      sums[stream] += reinterpret_cast<Lanes>(reinterpret_cast<IntLanes>(weights) & (logits >= bound));
    }
  }
  const Lanes sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
  return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

}  // namespace

float exp_of_nonpositive(float x) {
  return exp_lanes(Lanes{} + x)[0];
}

LogitRow::Block LogitRow::block_down_to(const RankedToken& last, int block, float (&copy)[kBlock]) const {
  const TokenId begin = block * kBlock;
  const auto logits = logits_.subspan(begin, std::min<size_t>(kBlock, logits_.size() - begin));
  // Equals of the last one count up to its id: in blocks before its own all, behind it none, and its own is copied.
  const bool holds_last = begin <= last.token && last.token < begin + kBlock;
  const float bound = last.token < begin ? std::nextafter(last.logit, kInfinity) : last.logit;
  if (logits.size() == kBlock && !holds_last) return {logits.data(), bound};
  std::ranges::fill(copy, -kInfinity);
  for (int idx = 0; idx < static_cast<int>(logits.size()); idx++) {
    if (!is_likelier(last, {logits[idx], begin + idx})) copy[idx] = logits[idx];
  }
  return {copy, bound};
}

void LogitRow::reserve(int vocab_size) {
  const auto blocks = static_cast<size_t>(ceil_div(vocab_size, kBlock));
  for (std::vector<float>* list : {&block_maxima_, &block_sums_, &maxima_by_size_}) list->reserve(blocks);
  likeliest_.reserve(static_cast<size_t>(vocab_size));
}

void LogitRow::assign(std::span<const float> logits) {
  logits_ = logits;
  block_maxima_.resize(ceil_div(logits.size(), kBlock));
  maximum_ = -kInfinity;
  float copy[kBlock];
  for (int block = 0; block < num_blocks(); block++) {
    block_maxima_[block] = maximum_of(block_down_to(kLastOfAll, block, copy).logits);
    // NaN stays: nothing is larger.
    if (block_maxima_[block] > maximum_ || std::isnan(block_maxima_[block])) maximum_ = block_maxima_[block];
  }
}

TokenId LogitRow::argmax() const {
  const auto block = std::ranges::find(block_maxima_, maximum_) - block_maxima_.begin();
  return static_cast<TokenId>(std::find(logits_.begin() + block * kBlock, logits_.end(), maximum_) - logits_.begin());
}

int LogitRow::rank(TokenId token) const {
  int rank = 1;
  for (int block = 0; block < num_blocks(); block++) {
    if (block_maxima_[block] < logits_[token]) continue;
    const TokenId end = std::min((block + 1) * kBlock, static_cast<int>(logits_.size()));
    for (TokenId other = block * kBlock; other < end; other++) rank += is_likelier(at(other), at(token));
  }
  return rank;
}

const std::vector<RankedToken>& LogitRow::likeliest(int count) {
  // At least `count` tokens reach the count-th largest of the blocks' maxima, and usually few more.
  float bound = kLastOfAll.logit;
  if (count <= num_blocks()) {
    maxima_by_size_ = block_maxima_;
    std::ranges::nth_element(maxima_by_size_, maxima_by_size_.begin() + (count - 1), std::greater());
    bound = std::max(bound, maxima_by_size_[count - 1]);
  }
  likeliest_.clear();
  for (int block = 0; block < num_blocks(); block++) {
    if (block_maxima_[block] < bound) continue;
    const TokenId end = std::min((block + 1) * kBlock, static_cast<int>(logits_.size()));
    for (TokenId token = block * kBlock; token < end; token++)
      if (logits_[token] >= bound) likeliest_.push_back(at(token));
  }
  const auto end = likeliest_.begin() + std::min<ptrdiff_t>(count, std::ssize(likeliest_));
  std::partial_sort(likeliest_.begin(), end, likeliest_.end(), is_likelier);
  likeliest_.erase(end, likeliest_.end());
  return likeliest_;
}

double LogitRow::weight_sum(float scale, const RankedToken& last) {
  scale_ = scale;
  last_ = last;
  block_sums_.resize(block_maxima_.size());
  double sum = 0;
  float copy[kBlock];
  for (int block = 0; block < num_blocks(); block++) {
    block_sums_[block] = 0;
    if (block_maxima_[block] < last.logit) continue;
    const auto [logits, bound] = block_down_to(last, block, copy);
    sum += block_sums_[block] = weight_sum_of(logits, bound, maximum_, scale);
  }
  return sum;
}

TokenId LogitRow::at_running_sum(double target) const {
  int block = 0;
  double sum = 0;
  while (block + 1 < num_blocks() && sum + block_sums_[block] <= target) sum += block_sums_[block++];
  float copy[kBlock];
  const auto [logits, bound] = block_down_to(last_, block, copy);
  TokenId found =
      -1;  // the block's sum was rounded in another order: the target may lie a little behind its last token
  for (int idx = 0; idx < kBlock && sum <= target; idx++) {
    if (logits[idx] < bound) continue;
    const float weight = exp_of_nonpositive((logits[idx] - maximum_) * scale_);
    sum += weight;
    if (weight > 0) found = block * kBlock + idx;
  }
  CHECK(found >= 0, "{} is not less than the sum of weights", target);
  return found;
}

}  // namespace cachalot
