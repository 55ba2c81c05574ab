#pragma once

#include <string>
#include <vector>

#include "base/error.h"

namespace cachalot {

// The nodes of the allocation that this process runs in, as `scontrol` spells them out.
Result<std::vector<std::string>> slurm_nodes();

}  // namespace cachalot
