#include "calibrate/scale_search.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/math.h"
#include "weights/group_rounding.h"

namespace cachalot {
namespace {

constexpr int64_t kSampleRows = 64;
constexpr int64_t kSearchedOutputs = 4096, kMostOutputs = 256, kFewestOutputs = 16;  // of all readers, and of one
constexpr int kNumAlphas = 11;                                                       // 0, 0.1, ..., 1
constexpr int kNumCandidates = 1 + kNumAlphas;                                       // the first is plain rounding
constexpr float kMostExponent = 8, kLeastShare = 0x1p-10f;
constexpr double kLeastSquare = 0.01;  // of the mean: another text may have what this one has not
constexpr int kLanes = 8;

using Errors = std::array<double, kNumCandidates>;

float dot(const float* left, const float* right, int64_t count) {
  float lanes[kLanes] = {};
  for (int64_t begin = 0; begin < count; begin += kLanes)
    for (int lane = 0; lane < kLanes; lane++) lanes[lane] += left[begin + lane] * right[begin + lane];
  float sum = 0;
  for (const float lane : lanes) sum += lane;
  return sum;
}

double squared_outputs(const std::vector<float>& row, const std::vector<const float*>& sample) {
  double sum = 0;
  for (const float* x : sample) {
    const double output = dot(row.data(), x, std::ssize(row));
    sum += output * output;
  }
  return sum;
}

// magnitude^alpha over its geometric mean. What was hardly ever seen counts as a little.
std::vector<float> factors_of(std::span<const float> magnitude, float alpha, bool powers_of_two) {
  const float least = std::max(kLeastShare * std::ranges::max(magnitude), std::numeric_limits<float>::min());
  std::vector<float> factors(magnitude.size());
  double sum = 0;
  for (size_t idx = 0; idx < factors.size(); idx++) sum += factors[idx] = std::log2(std::max(magnitude[idx], least));
  const auto mean = static_cast<float>(sum / static_cast<double>(factors.size()));
  for (float& factor : factors) {
    const float exponent = alpha * (factor - mean);
    factor = std::exp2(std::clamp(powers_of_two ? std::nearbyint(exponent) : exponent, -kMostExponent, kMostExponent));
  }
  return factors;
}

// One output of a reader under every candidate.
class OutputTrial {
 public:
  OutputTrial(const Reader& reader, const std::array<std::vector<float>, kNumCandidates>& factors,
              const QuantTarget& target)
      : reader_(reader),
        factors_(factors),
        target_(target),
        row_(static_cast<size_t>(reader.source.in_features)),
        scaled_(row_.size()),
        importance_(row_.size()),
        values_(row_.size()),
        codes_(row_.size()) {}

  // The outputs' squares, and those of each candidate's errors.
  double run(int64_t output, Errors& errors) {
    read_values(reader_.source, output, 0, reader_.source.in_features, row_.data());
    for (int candidate = 0; candidate < kNumCandidates; candidate++) errors[candidate] = error_of(candidate);
    return squared_outputs(row_, reader_.seen->sample);
  }

 private:
  double error_of(int candidate) {
    const std::vector<float>& factors = factors_[static_cast<size_t>(candidate)];
    for (size_t idx = 0; idx < row_.size(); idx++) {
      scaled_[idx] = row_[idx] * factors[idx];
      importance_[idx] = candidate == 0 ? 1 : reader_.seen->square[idx] / (factors[idx] * factors[idx]);
    }
    const auto group_size = static_cast<size_t>(target_.group_size);
    for (size_t begin = 0; begin < row_.size(); begin += group_size)
      round_trip(target_.format, {{scaled_.data() + begin, group_size}, {importance_.data() + begin, group_size}},
                 codes_.data(), values_.data() + begin);
    for (size_t idx = 0; idx < row_.size(); idx++) values_[idx] = values_[idx] / factors[idx] - row_[idx];
    return squared_outputs(values_, reader_.seen->sample);
  }

  const Reader& reader_;
  const std::array<std::vector<float>, kNumCandidates>& factors_;
  const QuantTarget& target_;
  std::vector<float> row_, scaled_, importance_, values_;
  std::vector<uint8_t> codes_;
};

}  // namespace

Activations observe(View<const float, 2> rows, std::span<const int32_t> row_ids, ThreadPool& threads) {
  const int64_t features = rows.extent(1), count = row_ids.empty() ? rows.extent(0) : std::ssize(row_ids);
  const auto row_at = [&](int64_t idx) { return rows.row(row_ids.empty() ? idx : row_ids[static_cast<size_t>(idx)]); };
  Activations seen{.magnitude = std::vector<float>(static_cast<size_t>(features)),
                   .square = std::vector<float>(static_cast<size_t>(features)),
                   .sample = {}};
  threads.parallel_for(features, 256, [&](int64_t begin, int64_t end, int) {
    for (int64_t idx = 0; idx < count; idx++) {
      const float* row = row_at(idx);
      for (int64_t feature = begin; feature < end; feature++) {
        seen.magnitude[feature] += std::fabs(row[feature]);
        seen.square[feature] += row[feature] * row[feature];
      }
    }
    for (int64_t feature = begin; feature < end; feature++) {
      seen.magnitude[feature] /= static_cast<float>(count);
      seen.square[feature] /= static_cast<float>(count);
    }
  });
  const auto least = static_cast<float>(kLeastSquare * std::accumulate(seen.square.begin(), seen.square.end(), 0.0) /
                                        static_cast<double>(features));
  for (float& square : seen.square) square = std::max(square, least);
  const int64_t num_samples = std::min(count, kSampleRows);
  for (int64_t idx = 0; idx < num_samples; idx++) seen.sample.push_back(row_at(idx * count / num_samples));
  return seen;
}

ChosenFactors choose_factors(std::span<const float> magnitude, bool powers_of_two, std::span<const Reader> readers,
                             const QuantTarget& target, ThreadPool& threads) {
  std::array<std::vector<float>, kNumCandidates> factors;
  factors[0].assign(magnitude.size(), 1.f);
  for (int idx = 0; idx < kNumAlphas; idx++)
    factors[static_cast<size_t>(1 + idx)] =
        factors_of(magnitude, static_cast<float>(idx) / (kNumAlphas - 1), powers_of_two);

  struct Output {
    const Reader* reader;
    int64_t output;
    double norm = 0;
    Errors errors = {};
  };
  std::vector<Output> outputs;
  const int64_t most_of_one = std::clamp(kSearchedOutputs / std::ssize(readers), kFewestOutputs, kMostOutputs);
  for (const Reader& reader : readers) {
    const int64_t out = reader.source.out_features, num_tried = std::min(out, most_of_one);
    for (int64_t idx = 0; idx < num_tried; idx++) outputs.push_back({&reader, idx * out / num_tried});
  }
  threads.parallel_for(std::ssize(outputs), 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t idx = begin; idx < end; idx++) {
      Output& tried = outputs[static_cast<size_t>(idx)];
      tried.norm = OutputTrial(*tried.reader, factors, target).run(tried.output, tried.errors);
    }
  });

  ChosenFactors chosen;
  Errors errors{};
  for (size_t begin = 0, end = 0; begin < outputs.size(); begin = end) {
    const Reader& reader = *outputs[begin].reader;
    chosen.weight += reader.weight;
    double norm = 0;
    for (end = begin; end < outputs.size() && outputs[end].reader == &reader; end++) norm += outputs[end].norm;
    if (norm == 0) continue;
    for (size_t idx = begin; idx < end; idx++)
      for (int candidate = 0; candidate < kNumCandidates; candidate++)
        errors[candidate] += reader.weight * outputs[idx].errors[candidate] / norm;
  }
  const auto best = static_cast<size_t>(std::ranges::min_element(errors) - errors.begin());
  chosen.plain_error = errors[0], chosen.error = errors[best];
  chosen.weighs = best > 0;
  if (std::ranges::any_of(factors[best], [](float factor) { return factor != 1; }))
    chosen.factors = std::move(factors[best]);
  return chosen;
}

}  // namespace cachalot
