#include "engine/epoch.h"

#include <algorithm>

namespace cachalot {

std::vector<int> Epoch::ranks() const {
  std::vector<int> ranks;
  for (const EpochMember& member : members) ranks.push_back(member.rank);
  return ranks;
}

EpochRoles roles_in_epoch(const ParallelOptions& parallel, std::span<const int> living, bool has_experts) {
  const int tp_size = parallel.tensor_parallel_size, own = parallel.group_rank();
  const auto is_whole = [&](int leader) {
    const auto in_replica = [&](int rank) { return rank >= leader && rank < leader + tp_size; };
    return has_experts && std::ranges::count_if(living, in_replica) == tp_size;
  };
  const int own_leader = own - parallel.tensor_parallel_rank;
  EpochRoles roles{.serves = is_whole(own_leader)};
  if (!roles.serves) roles.tensor_group.push_back(own);
  for (int rank = own_leader; roles.serves && rank < own_leader + tp_size; rank++) roles.tensor_group.push_back(rank);
  for (const int rank : living)
    if (const int leader = rank - rank % tp_size; rank == leader || !is_whole(leader)) roles.speakers.push_back(rank);
  return roles;
}

}  // namespace cachalot
