#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "comm/membership/member.h"
#include "engine/placement.h"
#include "placement/expert_placement.h"

namespace cachalot {

// Which processes the ranks are, in Prometheus' text format: `cachalot:rank_info`, 1 with what tells a rank as labels,
// and `cachalot:rank_resident_bytes`. `reports` are of ranks on this machine, `members` of all.
std::string render_rank_info(const std::vector<RankReport>& reports, const std::vector<Member>& members);

// What ranks hold and have done, in Prometheus' text format, each with a `rank` label.
std::string render_rank_reports(const std::vector<RankReport>& reports);

// Memory of a process, with what it shares with others: cheap to ask for, unlike the next, for which the system walks
// all pages. 0: not to be read.
int64_t resident_bytes(int64_t pid);

// {"num_experts": 256, "layers": [[rows that chose expert 0, ...], ...]}: what `cachalot eplb` reads.
std::string expert_load_json(std::span<const uint64_t> counts, const ExpertPlacement::Shape& experts);

// The memory of each rank's process (Pss, bytes), by its place in `reports`. -1: not to be read.
std::vector<int64_t> measure_resident_bytes(const std::vector<RankReport>& reports);

// {"ranks": [{"rank", "dp_rank", "tp_rank", "pid", "node", "experts": [[ids, -1: spare], of each layer
// with experts], "weight_bytes", ...}, ...]}. placement: null where there are none.
std::string rank_reports_json(const std::vector<RankReport>& reports, const std::vector<Member>& members,
                              const std::vector<int64_t>& resident_bytes, const ExpertPlacement* placement);

}  // namespace cachalot
