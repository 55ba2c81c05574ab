#include "model/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <vector>

#include "base/elementary.h"

namespace cachalot {
namespace {

double yarn_mscale(double factor, double mscale) {
  return factor <= 1 ? 1 : 0.1 * mscale * portable::log(factor) + 1;
}

// The (fractional) pair whose wave turns `num_rotations` times over the original context.
double correction_dim(double num_rotations, double dim, double theta, double original_positions) {
  return dim * portable::log(original_positions / (num_rotations * 2 * std::numbers::pi)) / (2 * portable::log(theta));
}

std::vector<double> inverse_frequencies(const ModelConfig& config) {
  const int dim = config.qk_rope_head_dim;
  std::vector<double> frequencies(static_cast<size_t>(dim / 2));
  for (int pair = 0; pair < dim / 2; pair++)
    frequencies[static_cast<size_t>(pair)] = portable::pow(config.rope_theta, -2.0 * pair / dim);
  if (!config.yarn) return frequencies;
  const YarnConfig& yarn = *config.yarn;
  const double low = std::max(
      0.0, std::floor(correction_dim(yarn.beta_fast, dim, config.rope_theta, yarn.original_max_position_embeddings)));
  double high = std::min(dim - 1.0, std::ceil(correction_dim(yarn.beta_slow, dim, config.rope_theta,
                                                             yarn.original_max_position_embeddings)));
  if (low == high) high += 0.001;
  for (int pair = 0; pair < dim / 2; pair++) {
    const double interpolated = std::clamp((pair - low) / (high - low), 0.0, 1.0);
    double& frequency = frequencies[static_cast<size_t>(pair)];
    frequency = frequency / yarn.factor * interpolated + frequency * (1 - interpolated);
  }
  return frequencies;
}

// What a row of the table holds for a pair.
class Angles {
 public:
  explicit Angles(const ModelConfig& config) : frequencies_(inverse_frequencies(config)) {
    if (config.yarn)
      magnitude_ = yarn_mscale(config.yarn->factor, config.yarn->mscale) /
                   yarn_mscale(config.yarn->factor, config.yarn->mscale_all_dim);
  }
  int num_pairs() const { return static_cast<int>(frequencies_.size()); }

  portable::SinCos at(int64_t position, int pair) const {
    // The angle as a float product, like the models were trained with: at far positions its rounding is a visible part.
    const float angle = static_cast<float>(position) * static_cast<float>(frequencies_[static_cast<size_t>(pair)]);
    const auto [sin, cos] = portable::sin_cos(static_cast<double>(angle));
    return {sin * magnitude_, cos * magnitude_};
  }

 private:
  std::vector<double> frequencies_;
  double magnitude_ = 1;
};

}  // namespace

size_t Rope::table_bytes(const ModelConfig& config, int64_t max_positions) {
  return static_cast<size_t>(max_positions) * static_cast<size_t>(config.qk_rope_head_dim) * sizeof(float);
}

Result<Rope> Rope::create(const ModelConfig& config, int64_t max_positions) {
  Rope rope;
  ASSIGN_OR_RETURN(rope.buffer_, Device::allocate(table_bytes(config, max_positions)));
  const Angles angles(config);
  const int num_pairs = angles.num_pairs();
  auto* data = reinterpret_cast<float*>(rope.buffer_.data());
  const View<float, 2> cos(data, max_positions, num_pairs),
      sin(data + max_positions * num_pairs, max_positions, num_pairs);
  for (int64_t position = 0; position < max_positions; position++) {
    for (int pair = 0; pair < num_pairs; pair++) {
      const portable::SinCos values = angles.at(position, pair);
      cos(position, pair) = static_cast<float>(values.cos);  // host: once, at load
      sin(position, pair) = static_cast<float>(values.sin);  // host: as above
    }
  }
  rope.table_ = {cos, sin};
  return rope;
}

uint64_t Rope::hash(const ModelConfig& config, int64_t max_positions) {
  constexpr int64_t kRows = 2048;
  const Angles angles(config);
  portable::BitHash hash;
  hash.add(double{softmax_scale(config)});
  for (int64_t row = 0; row < kRows; row++) {
    for (int pair = 0; pair < angles.num_pairs(); pair++) {
      const portable::SinCos values = angles.at(row * max_positions / kRows, pair);
      hash.add(values.sin);
      hash.add(values.cos);
    }
  }
  return hash.value();
}

float Rope::softmax_scale(const ModelConfig& config) {
  double scale = 1 / std::sqrt(static_cast<double>(config.qk_head_dim()));
  if (config.yarn && config.yarn->mscale_all_dim != 0) {
    const double mscale = yarn_mscale(config.yarn->factor, config.yarn->mscale_all_dim);
    scale *= mscale * mscale;
  }
  return static_cast<float>(scale);
}

}  // namespace cachalot
