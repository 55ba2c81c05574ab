#include "comm/world.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "base/log.h"
#include "comm/membership/wire.h"

namespace cachalot {

namespace {

// A group that meets at a loopback address cannot be of two nodes.
bool meets_on_loopback(const std::string& host) {
  return host == "localhost" || host == "::1" || host.starts_with("127.");
}

}  // namespace

Result<RankWays> RankWays::open(const WorldOptions& options) {
  const JoinOptions& join = options.join;
  RankWays ways;
  ways.rank_ = join.rank;
  ways.choice_ = options.transports;
  if (join.size == 1) return ways;
  if (options.transports != TransportChoice::kUcx) {
    Result<ShmEndpoint> shm = ShmEndpoint::create({.rank = join.rank, .deadline = options.connect_deadline});
    if (shm)
      ways.shm_ = std::move(*shm);
    else if (options.transports == TransportChoice::kShm)
      return std::unexpected(std::move(shm.error()));
    else
      log::warn("rank {} has no shared memory, so UCX takes its place: {}", join.rank, shm.error().message);
  }
  const bool within_node = options.transports == TransportChoice::kShm || (ways.shm_ && meets_on_loopback(join.host));
  if (!within_node) {
    ways.ucx_ = UcxEndpoint::create({
        .rank = join.rank,
        .network_interface = options.network_interface,
        .route_to = join.host,
        .environment = options.ucx_environment,
        .deadline = options.connect_deadline,
    });
  }
  return ways;
}

std::string RankWays::card(Member own) const {
  own.shm_socket = shm_socket();
  own.ucx_address = ucx_address();
  return control::encode(own);
}

Result<Member> RankWays::read_card(std::string_view card) {
  control::Reader reader(card);
  Member member;
  reader(member);
  if (!reader.complete())
    return make_error(ErrorCode::kCorrupt, "a rank's card of {} bytes contradicts itself", card.size());
  return member;
}

Result<std::vector<std::unique_ptr<Transport>>> RankWays::connect(uint32_t epoch, std::span<const Member> members,
                                                                  const Watch& watch, const std::stop_token& stop) {
  const auto own = std::ranges::find(members, rank_, &Member::rank);
  CHECK(own != members.end(), "rank {} is not among those that it connects to", rank_);
  std::vector<ShmAddress> near;
  std::vector<UcxAddress> far;
  std::vector<int> apart;  // near and yet far
  const Member* first_far = nullptr;
  for (const Member& member : members) {
    if (member.rank == rank_) continue;
    const bool is_near = choice_ != TransportChoice::kUcx && member.node == own->node;
    if (is_near && (choice_ == TransportChoice::kShm || ShmEndpoint::may_share(own->shm_socket, member.shm_socket))) {
      near.push_back({.rank = member.rank, .address = member.shm_socket});
    } else {
      far.push_back({.rank = member.rank, .address = member.ucx_address});
      if (!first_far) first_far = &member;
      if (is_near) apart.push_back(member.rank);
    }
  }
  if (!apart.empty() && shm_) {
    log::warn(
        "rank {}: UCX takes the place of shared memory with {}, on the same node: no shared memory there, or "
        "another user",
        rank_, rank_list(apart));
  }

  std::vector<std::unique_ptr<Transport>> transports;
  if (!near.empty()) {
    ASSIGN_OR_RETURN(std::unique_ptr<Transport> shm, connect_near(epoch, near, watch, stop));
    transports.push_back(std::move(shm));
  }
  if (!far.empty()) {
    ASSIGN_OR_RETURN(std::unique_ptr<Transport> ucx, connect_far(epoch, far, *own, *first_far, stop));
    transports.push_back(std::move(ucx));
  }
  return transports;
}

Result<std::unique_ptr<Transport>> RankWays::connect_near(uint32_t epoch, std::span<const ShmAddress> near,
                                                          const Watch& watch, const std::stop_token& stop) {
  shm_->set_epoch(epoch);
  ASSIGN_OR_RETURN(std::unique_ptr<ShmTransport> shm, shm_->connect(near, stop));
  for (const PeerProcess& process : shm->take_peer_pidfds())
    if (process.pidfd) RETURN_IF_ERROR(watch(process.rank, process.pidfd.get()));
  return shm;
}

Result<std::unique_ptr<Transport>> RankWays::connect_far(uint32_t epoch, std::span<const UcxAddress> far,
                                                         const Member& own, const Member& first,
                                                         const std::stop_token& stop) {
  if (!ucx_)
    return make_error(ErrorCode::kUnsupported, "{} {}", first.name(),
                      first.node == own.node ? "shares no memory with this rank, which needs --transports ucx"
                                             : "is on another node, which --transports shm cannot reach");
  RETURN_IF_ERROR(*ucx_);
  log::info("rank {}: {}", rank_, (*ucx_)->settings());
  (*ucx_)->set_epoch(epoch);
  return (*ucx_)->connect(far, stop);
}

namespace {

MeshOptions mesh_options(const Membership& membership, std::chrono::milliseconds deadline) {
  const std::vector<Member>& members = membership.members();
  MeshOptions options{
      .rank = membership.rank(), .size = membership.size(), .epoch = membership.epoch(), .deadline = deadline};
  for (const Member& member : members) options.rank_names.push_back(member.name());
  const auto num_cores = std::ssize(members[membership.rank()].cores);
  if (core_sharers(members, membership.rank()).count <= num_cores) options.spin = kSpin;
  return options;
}

Result<std::unique_ptr<Mesh>> connect_mesh(RankWays& ways, Membership& membership, const WorldOptions& options) {
  auto transports = ways.connect(membership.epoch(), membership.members(),
                                 [&](int rank, int pidfd) { return membership.watch_process(rank, pidfd); });
  if (transports) return Mesh::create(mesh_options(membership, options.deadline), std::move(*transports));
  // A rank that was lost meanwhile is the cause of what it seems to be.
  if (const std::optional<LostRank> lost = membership.first_lost())
    return make_error(ErrorCode::kUnavailable, "{}", lost->message());
  membership.give_up(transports.error().message);
  return std::unexpected(std::move(transports.error()));
}

// "rank 0: shm to 3 ranks, ucx to 28".
void log_transports(const Mesh& mesh) {
  std::string text;
  for (const Mesh::Traffic& traffic : mesh.traffic()) {
    if (traffic.num_peers == 0) continue;
    text += fmt::format("{} {} to {}{}", text.empty() ? "" : ",", traffic.transport, traffic.num_peers,
                        !text.empty()            ? ""
                        : traffic.num_peers == 1 ? " rank"
                                                 : " ranks");
  }
  if (!text.empty()) log::info("rank {}:{}", mesh.rank(), text);
}

}  // namespace

Result<std::unique_ptr<World>> World::form(WorldOptions options) {
  ASSIGN_OR_RETURN(RankWays ways, RankWays::open(options));
  options.join.shm_socket = ways.shm_socket();
  options.join.ucx_address = ways.ucx_address();
  ASSIGN_OR_RETURN(std::unique_ptr<Membership> membership, Membership::join(options.join));
  ASSIGN_OR_RETURN(std::unique_ptr<Mesh> mesh, connect_mesh(ways, *membership, options));
  log_transports(*mesh);
  return std::unique_ptr<World>(new World(std::move(mesh), std::move(membership)));
}

World::World(std::unique_ptr<Mesh> mesh, std::unique_ptr<Membership> membership)
    : mesh_(std::move(mesh)), membership_(std::move(membership)) {
  membership_->set_lost_handler([&mesh = *mesh_, epoch = membership_->epoch()](const LostRank& lost) {
    mesh.end_epoch(epoch, {.code = ErrorCode::kUnavailable, .message = lost.message()});
  });
}

}  // namespace cachalot
