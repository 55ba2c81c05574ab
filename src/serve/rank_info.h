#pragma once

#include <string>
#include <vector>

#include "comm/membership/member.h"
#include "engine/rank_report.h"

namespace cachalot {

// Which processes the ranks are, in Prometheus' text format: `cachalot:rank_info`, 1 with what tells a rank as labels,
// and `cachalot:rank_resident_bytes`. `reports` are of ranks on this machine, `members` of all.
std::string render_rank_info(const std::vector<RankReport>& reports, const std::vector<Member>& members);

}  // namespace cachalot
