#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "base/error.h"
#include "placement/expert_placement.h"

namespace cachalot {

// One that is as it must be; the process ends where it is not.
inline ExpertPlacement make_placement(const ExpertPlacement::Shape& shape,
                                      const std::vector<ExpertPlacement::Layer>& layers, uint32_t version = 1) {
  auto placement = ExpertPlacement::create(shape, version, layers);
  CHECK(placement, "{}", placement.error().message);
  return std::move(*placement);
}

}  // namespace cachalot
