#include "serve/agent_seat.h"

#include <utility>

namespace cachalot {
Result<std::unique_ptr<AgentSeat>> AgentSeat::take(const ParallelOptions& options, WorldOptions world,
                                                   const Member& own) {
  MeshOptions mesh_options{.rank = own.rank, .size = world.join.size, .epoch = 0, .living = {own.rank}};
  mesh_options.deadline = world.deadline;
  if (options.local_ranks() <= std::ssize(own.cores)) mesh_options.spin = kSpin;
  ASSIGN_OR_RETURN(std::unique_ptr<Mesh> mesh, Mesh::create(std::move(mesh_options), {}));
  std::unique_ptr<AgentSeat> seat(new AgentSeat(options, std::move(mesh)));
  seat->epochs_ = std::make_unique<RankEpochs>(
      std::move(world), own, [seat = seat.get()](const RankEpochs::Standing& standing) { seat->report(standing); });
  seat->epochs_->attach(*seat->mesh_, nullptr);
  seat->link_.on_order([seat = seat.get()](const agents::Order& order) { seat->obey(order); });
  return seat;
}

AgentSeat::AgentSeat(const ParallelOptions& options, std::unique_ptr<Mesh> mesh)
    : rank_(options.group_rank()),
      process_(options.process),
      mesh_(std::move(mesh)),
      link_(FileDescriptor(options.agent_fd), std::chrono::milliseconds(options.failure_timeout_ms)) {}

AgentSeat::~AgentSeat() {
  link_.on_order({});
}

void AgentSeat::obey(const agents::Order& order) {
  RankEpochs::Decision decision{.number = order.epoch.number, .seats = {}};
  for (const agents::EpochMember& member : order.epoch.members)
    decision.seats.push_back({.rank = member.rank, .process = member.process, .card = member.card});
  epochs_->stand_behind_until(order.serve_until);
  epochs_->decide(std::move(decision));
}

void AgentSeat::report(const RankEpochs::Standing& standing) {
  link_.report({.process = process_,
                .rank = rank_,
                .phase = standing.is_member  ? agents::RankPhase::kMember
                         : standing.is_ready ? agents::RankPhase::kReady
                                             : agents::RankPhase::kLoading,
                .epoch = standing.epoch,
                .committed = standing.num_steps,
                .placement_version = standing.placement_version,
                .card = standing.card});
}

}  // namespace cachalot
