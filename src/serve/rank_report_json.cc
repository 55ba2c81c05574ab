#include "serve/rank_report_json.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json.hpp>
#include <fstream>

namespace cachalot {
namespace {

namespace json = boost::json;

int64_t proportional_set_size(int64_t pid) {
  std::ifstream file(fmt::format("/proc/{}/smaps_rollup", pid));
  for (std::string word; file >> word;) {
    int64_t kib = 0;
    if (word == "Pss:" && file >> kib) return kib * 1024;
  }
  return -1;
}

json::array ids(int64_t first, int64_t count) {
  json::array ids;
  for (int64_t id = first; id < first + count; id++) ids.push_back(id);
  return ids;
}

json::object describe(const RankReport& report, const std::vector<Member>& members, int64_t resident_bytes) {
  const auto member = std::ranges::find(members, report.rank, &Member::rank);
  return {{"rank", report.rank},
          {"dp_rank", report.dp_rank},
          {"tp_rank", report.tp_rank},
          {"pid", report.pid},
          {"node", member == members.end() ? "" : member->host},
          {"arithmetic", report.arithmetic},
          {"experts", ids(report.first_expert, report.num_experts)},
          {"weight_bytes", report.weight_bytes},
          {"planned_weight_bytes", report.planned_weight_bytes},
          {"rows_brought", report.rows_brought},
          {"rows_sent", report.rows_sent},
          {"rows_received", report.rows_received},
          {"sequence_parallel_rows", report.sequence_parallel_rows},
          {"agreements", report.agreements},
          {"steps", report.steps},
          {"bytes", json::object{{"shm", report.shm_bytes_sent}, {"ucx", report.ucx_bytes_sent}}},
          {"resident_bytes", resident_bytes}};
}

}  // namespace

std::vector<int64_t> measure_resident_bytes(const std::vector<RankReport>& reports) {
  std::vector<int64_t> bytes;
  for (const RankReport& report : reports) bytes.push_back(proportional_set_size(report.pid));
  return bytes;
}

std::string rank_reports_json(const std::vector<RankReport>& reports, const std::vector<Member>& members,
                              const std::vector<int64_t>& resident_bytes) {
  json::array ranks;
  for (size_t idx = 0; idx < reports.size(); idx++)
    ranks.push_back(describe(reports[idx], members, idx < resident_bytes.size() ? resident_bytes[idx] : -1));
  return json::serialize(json::object{{"ranks", ranks}}) + "\n";
}

}  // namespace cachalot
