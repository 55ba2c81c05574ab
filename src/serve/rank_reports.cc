#include "serve/rank_reports.h"

#include <fmt/format.h>
#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>

#include <algorithm>
#include <boost/json.hpp>
#include <fstream>

#include "device/device.h"

namespace cachalot {

namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;

// One metric of all ranks; more than one value a rank with other labels beside `rank`.
class Family {
 public:
  Family(const char* name, const char* help, MetricType type)
      : family_{.name = name, .help = help, .type = type, .metric = {}} {}

  void add(int64_t rank, double value, const std::vector<ClientMetric::Label>& labels = {}) {
    ClientMetric metric;
    metric.label.push_back({.name = "rank", .value = std::to_string(rank)});
    metric.label.insert(metric.label.end(), labels.begin(), labels.end());
    metric.counter.value = metric.gauge.value = value;
    family_.metric.push_back(std::move(metric));
  }
  MetricFamily take() { return std::move(family_); }

 private:
  MetricFamily family_;
};

double seconds(uint64_t nanoseconds) {
  return static_cast<double>(nanoseconds) * 1e-9;
}

}  // namespace

std::string render_rank_info(const std::vector<RankReport>& reports, const std::vector<Member>& members) {
  Family info("cachalot:rank_info", "Which process a rank is, and by which placement it has its experts",
              MetricType::Gauge);
  Family resident("cachalot:rank_resident_bytes", "Memory of the rank's process, with what it shares with others",
                  MetricType::Gauge);
  for (const RankReport& report : reports) {
    const auto member = std::ranges::find(members, report.rank, &Member::rank);
    info.add(report.rank, 1,
             {{"pid", std::to_string(report.pid)},
              {"host", member == members.end() ? "" : member->host},
              {"placement_version", std::to_string(report.placement_version)}});
    resident.add(report.rank, static_cast<double>(resident_bytes(report.pid)));
  }
  return prometheus::TextSerializer().Serialize({info.take(), resident.take()});
}

std::string render_rank_reports(const std::vector<RankReport>& reports) {
  Family experts("cachalot:rank_experts", "Experts of a layer that the rank holds, on average", MetricType::Gauge);
  Family slots("cachalot:rank_expert_slots", "Slots for experts that the rank has, of all layers", MetricType::Gauge);
  Family weight_bytes("cachalot:rank_weight_bytes", "Bytes of weights that the rank holds", MetricType::Gauge);
  Family rows("cachalot:dispatch_rows_total", "Token rows that went to other ranks' experts, and came to the rank's",
              MetricType::Counter);
  Family brought("cachalot:moe_rows_total", "Token rows that the rank entered into MoE layers", MetricType::Counter);
  Family owned("cachalot:sequence_parallel_rows_total",
               "Token rows that the rank owned between two attentions, summed over layers", MetricType::Counter);
  Family bytes("cachalot:transport_bytes_total", "Bytes of messages sent to other ranks", MetricType::Counter);
  Family agreements("cachalot:agreements_total", "Agreements on a next round", MetricType::Counter);
  Family steps("cachalot:steps_total", "Forward passes", MetricType::Counter);
  Family without_rows("cachalot:steps_without_rows_total",
                      "Forward passes to which the rank's replica brought no tokens, for the other replicas' sake",
                      MetricType::Counter);
  Family expert_rows("cachalot:expert_rows_total",
                     "Token rows that the rank's experts computed, each for every expert that it met",
                     MetricType::Counter);
  Family version("cachalot:placement_version", "Version of the experts' placement by which the rank computes",
                 MetricType::Gauge);
  Family switches("cachalot:placement_switches_total", "How often the rank went over to another placement of experts",
                  MetricType::Counter);
  Family moved("cachalot:moved_experts_total", "Experts that the rank brought into its slots while it ran",
               MetricType::Counter);
  Family failed("cachalot:failed_moves_total",
                "Placements that were given up because some rank could not bring its part", MetricType::Counter);
  Family balancedness(
      "cachalot:expert_balancedness",
      "Mean rows of all ranks' experts over the busiest rank's, when rank 0 last looked (--enable-eplb)",
      MetricType::Gauge);
  Family time("cachalot:step_seconds_total",
              "Time in steps: computing, exchanging rows, and waiting until other ranks have done their part",
              MetricType::Counter);
  Family epoch("cachalot:epoch", "Number of the group's membership", MetricType::Gauge);
  Family epoch_changes("cachalot:epoch_changes_total", "Changes of the group's membership that the rank went through",
                       MetricType::Counter);
  Family epoch_pause("cachalot:epoch_pause_seconds_total", "Time between two memberships, without steps",
                     MetricType::Counter);
  Family foreign("cachalot:foreign_messages_total", "Words of another epoch, which were passed over",
                 MetricType::Counter);
  Family living("cachalot:living_ranks", "Ranks of the group that are in its epoch", MetricType::Gauge);
  Family lost("cachalot:lost_ranks_total", "Ranks that the group has lost since the rank is in it",
              MetricType::Counter);
  Family lost_experts("cachalot:lost_experts_loaded_total",
                      "Experts that the rank has loaded because no living rank held them", MetricType::Counter);
  for (const RankReport& report : reports) {
    living.add(report.rank, static_cast<double>(report.living_ranks));
    lost.add(report.rank, static_cast<double>(report.ranks_lost));
    lost_experts.add(report.rank, static_cast<double>(report.lost_experts_loaded));
    epoch.add(report.rank, static_cast<double>(report.epoch));
    epoch_changes.add(report.rank, static_cast<double>(report.epoch_changes));
    epoch_pause.add(report.rank, seconds(report.nanoseconds_between_epochs));
    foreign.add(report.rank, static_cast<double>(report.foreign_messages));
    experts.add(report.rank, report.experts_of_layer());
    slots.add(report.rank, static_cast<double>(report.expert_slots));
    weight_bytes.add(report.rank, static_cast<double>(report.weight_bytes));
    rows.add(report.rank, static_cast<double>(report.rows_sent), {{"direction", "sent"}});
    rows.add(report.rank, static_cast<double>(report.rows_received), {{"direction", "received"}});
    brought.add(report.rank, static_cast<double>(report.rows_brought));
    owned.add(report.rank, static_cast<double>(report.sequence_parallel_rows));
    bytes.add(report.rank, static_cast<double>(report.shm_bytes_sent), {{"transport", "shm"}});
    bytes.add(report.rank, static_cast<double>(report.ucx_bytes_sent), {{"transport", "ucx"}});
    agreements.add(report.rank, static_cast<double>(report.agreements));
    steps.add(report.rank, static_cast<double>(report.steps));
    without_rows.add(report.rank, static_cast<double>(report.steps_without_rows));
    expert_rows.add(report.rank, static_cast<double>(report.expert_rows));
    version.add(report.rank, static_cast<double>(report.placement_version));
    switches.add(report.rank, static_cast<double>(report.placement_switches));
    moved.add(report.rank, static_cast<double>(report.experts_moved));
    failed.add(report.rank, static_cast<double>(report.failed_moves));
    if (report.balancedness_permille > 0)
      balancedness.add(report.rank, static_cast<double>(report.balancedness_permille) / 1000);
    time.add(report.rank, seconds(report.nanoseconds_computing), {{"part", "compute"}});
    time.add(report.rank, seconds(report.nanoseconds_exchanging), {{"part", "exchange"}});
    time.add(report.rank, seconds(report.nanoseconds_waiting), {{"part", "waiting"}});
  }
  std::vector<MetricFamily> families;
  for (Family* family :
       {&experts,    &slots,         &weight_bytes, &rows,    &brought,  &expert_rows, &owned,       &bytes,
        &agreements, &steps,         &without_rows, &version, &switches, &moved,       &failed,      &time,
        &epoch,      &epoch_changes, &epoch_pause,  &foreign, &living,   &lost,        &lost_experts})
    families.push_back(family->take());
  if (std::ranges::any_of(reports, [](const RankReport& report) { return report.balancedness_permille > 0; }))
    families.push_back(balancedness.take());
  return prometheus::TextSerializer().Serialize(families);
}

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

json::array slots_of(const ExpertPlacement& placement, int64_t rank) {
  json::array layers;
  for (int layer = 0; layer < placement.shape().num_layers; layer++)
    layers.push_back(json::value_from(placement.slots(layer, static_cast<int>(rank))));
  return layers;
}

json::object describe(const RankReport& report, const std::vector<Member>& members, int64_t resident_bytes,
                      const ExpertPlacement* placement) {
  const auto member = std::ranges::find(members, report.rank, &Member::rank);
  return {{"rank", report.rank},
          {"dp_rank", report.dp_rank},
          {"tp_rank", report.tp_rank},
          {"pid", report.pid},
          {"node", member == members.end() ? "" : member->host},
          {"arithmetic", report.arithmetic},
          {"experts", placement ? slots_of(*placement, report.rank % placement->shape().num_ranks) : json::array()},
          {"placement_version", report.placement_version},
          {"placement_hash", report.placement_hash},
          {"placement_switches", report.placement_switches},
          {"experts_moved", report.experts_moved},
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

std::string expert_load_json(std::span<const uint64_t> counts, const ExpertPlacement::Shape& experts) {
  json::array layers;
  const auto num_experts = static_cast<size_t>(experts.num_experts);
  for (size_t layer = 0; layer < static_cast<size_t>(experts.num_layers); layer++)
    layers.push_back(json::value_from(counts.subspan(layer * num_experts, num_experts)));
  return json::serialize(json::object{{"num_experts", experts.num_experts}, {"layers", std::move(layers)}}) + "\n";
}

std::vector<int64_t> measure_resident_bytes(const std::vector<RankReport>& reports) {
  std::vector<int64_t> bytes;
  for (const RankReport& report : reports) bytes.push_back(proportional_set_size(report.pid));
  return bytes;
}

std::string rank_reports_json(const std::vector<RankReport>& reports, const std::vector<Member>& members,
                              const std::vector<int64_t>& resident_bytes, const ExpertPlacement* placement) {
  json::array ranks;
  for (size_t idx = 0; idx < reports.size(); idx++)
    ranks.push_back(describe(reports[idx], members, idx < resident_bytes.size() ? resident_bytes[idx] : -1, placement));
  return json::serialize(json::object{{"ranks", ranks}}) + "\n";
}

}  // namespace cachalot
