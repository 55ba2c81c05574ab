#pragma once

#include <algorithm>

#include "core/sampling_params.h"
#include "core/types.h"

namespace cachalot {

// Whether a sequence ends with `last`, its num_generated-th generated token. The rank asks at every step, so that an
// ended sequence brings no further rows; the scheduler holds the rank to it. Before min_tokens no stop id is ever
// sampled.
inline FinishReason finish_reason(const SamplingParams& sampling, int num_generated, TokenId last) {
  const auto& stops = sampling.stop_token_ids;
  if (std::ranges::find(stops, last) != stops.end()) return FinishReason::kStop;
  return num_generated >= sampling.max_tokens ? FinishReason::kLength : FinishReason::kNone;
}

}  // namespace cachalot
