#include "routing_rows.h"

#include <set>

namespace cachalot::test {

void PrintTo(const Rows& rows, std::ostream* out) {
  *out << rows.brought << " brought, " << rows.sent << " sent, " << rows.received << " received";
}

std::vector<Rows> rows_by_routing(const ModelRun& run, const Layout& layout, const std::vector<ReplicaInput>& inputs,
                                  const std::vector<RunResult>& results) {
  std::vector<Rows> rows(static_cast<size_t>(layout.num_ranks()));
  const int top_k = run.config().num_experts_per_token;
  const SharedPlacement placement = even_placement(run.config(), layout.num_ranks());
  std::vector<CopyChoice> choices;
  for (int home = 0; home < layout.num_ranks(); home++) choices.emplace_back(*placement, home, std::span<const int>());
  for (size_t replica = 0; replica < inputs.size(); replica++) {
    const size_t num_tokens = inputs[replica].tokens.size();
    for (int layer = 0; layer < run.num_moe_layers(); layer++) {
      size_t token = 0;
      for (const int num_rows : run.rows_of_steps(inputs[replica])) {
        const RowPartition partition(num_rows, layout.tp_size);
        for (int tp_rank = 0; tp_rank < layout.tp_size; tp_rank++) {
          const size_t home = replica * static_cast<size_t>(layout.tp_size) + static_cast<size_t>(tp_rank);
          for (int64_t row = 0; row < partition.count(tp_rank); row++, token++) {
            const int32_t* ids = results[replica].chosen_expert_ids.data() +
                                 (static_cast<size_t>(layer) * num_tokens + token) * static_cast<size_t>(top_k);
            std::set<size_t> destinations;
            for (int slot = 0; slot < top_k; slot++)
              destinations.insert(choices[home].choose(layer, ids[slot], row).rank);
            rows[home].brought++;
            for (const size_t destination : destinations) {
              if (destination == home) continue;
              rows[home].sent++;
              rows[destination].received++;
            }
          }
        }
      }
    }
  }
  return rows;
}

}  // namespace cachalot::test
