#pragma once

#include <string>
#include <vector>

#include "engine/rank_report.h"

namespace cachalot {

// What ranks hold and have done, in Prometheus' text format, each with a `rank` label.
std::string render_rank_reports(const std::vector<RankReport>& reports);

}  // namespace cachalot
