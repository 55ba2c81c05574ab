#pragma once

#include <string>

#include "base/error.h"
#include "weights/checkpoint.h"

namespace cachalot {

// Hash (32 hex digits) over the folder's config.json, the files' sizes and headers, and kSampledPages evenly spread
// pages of each file's data. Two models that differ in anything but a few unlucky bytes differ in it.
inline constexpr int kSampledPages = 16;
Result<std::string> fingerprint_of(const Checkpoint& checkpoint);

}  // namespace cachalot
