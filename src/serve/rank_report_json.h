#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "comm/membership/member.h"
#include "engine/rank_report.h"

namespace cachalot {

// The memory of each rank's process (Pss, bytes), by its place in `reports`. -1: not to be read.
std::vector<int64_t> measure_resident_bytes(const std::vector<RankReport>& reports);

// {"ranks": [{"rank", "dp_rank", "tp_rank", "pid", "node", "experts": [ids], "weight_bytes", ...}, ...]}.
std::string rank_reports_json(const std::vector<RankReport>& reports, const std::vector<Member>& members,
                              const std::vector<int64_t>& resident_bytes);

}  // namespace cachalot
