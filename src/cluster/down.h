#pragma once

#include <string>

#include "base/error.h"
#include "cluster/run_folder.h"

namespace cachalot {

// Drains and stops the cluster of that name, and waits until nothing of it is left. `now`: without draining. One that
// is not up is an error.
Status run_down(const RunFolder& folder, const std::string& name, bool now);

}  // namespace cachalot
