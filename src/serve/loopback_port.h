#pragma once

#include <cstdint>

#include "base/error.h"

namespace cachalot {

// A port that is free now, for a group that meets on this machine alone.
Result<uint16_t> free_loopback_port();

}  // namespace cachalot
