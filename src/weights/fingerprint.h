#pragma once

#include <string>

#include "base/error.h"
#include "weights/checkpoint.h"

namespace cachalot {

// What of each file's data a fingerprint is over, beside config.json and the files' sizes and headers.
enum class FingerprintDepth {
  kSampled,  // kSampledPages evenly spread pages: two models that differ in more than a few unlucky bytes differ in it
  kWhole,    // every byte: as slow as the disk
};
inline constexpr int kSampledPages = 16;

// 32 hex digits.
Result<std::string> fingerprint_of(const Checkpoint& checkpoint, FingerprintDepth depth = FingerprintDepth::kSampled);

}  // namespace cachalot
