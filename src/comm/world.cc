#include "comm/world.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "base/log.h"
#include "comm/shm/shm_endpoint.h"
#include "comm/ucx/ucx_endpoint.h"

namespace cachalot {

namespace {

// Longer than it takes to wake a sleeper (6 us, on virtual machines up to 40): two ranks of which one came late once
// would send each other to sleep for good. Still longer looks are lost on others.
constexpr std::chrono::microseconds kSpin{50};

// A group that meets at a loopback address cannot be of two nodes.
bool meets_on_loopback(const std::string& host) {
  return host == "localhost" || host == "::1" || host.starts_with("127.");
}

// The ways of this rank to the others; the addresses of the open ones travel through the rendezvous. Which ways are
// needed is known only afterwards.
class Endpoints {
 public:
  static Result<Endpoints> open(const WorldOptions& options) {
    const JoinOptions& join = options.join;
    Endpoints endpoints;
    endpoints.choice_ = options.transports;
    if (join.size == 1) return endpoints;
    if (options.transports != TransportChoice::kUcx) {
      Result<ShmEndpoint> shm = ShmEndpoint::create({.rank = join.rank, .epoch = join.epoch});
      if (shm)
        endpoints.shm_ = std::move(*shm);
      else if (options.transports == TransportChoice::kShm)
        return std::unexpected(std::move(shm.error()));
      else
        log::warn("rank {} has no shared memory, so UCX takes its place: {}", join.rank, shm.error().message);
    }
    const bool within_node =
        options.transports == TransportChoice::kShm || (endpoints.shm_ && meets_on_loopback(join.host));
    if (!within_node) {
      endpoints.ucx_ = UcxEndpoint::create({
          .rank = join.rank,
          .epoch = join.epoch,
          .network_interface = options.network_interface,
          .route_to = join.host,
          .environment = options.ucx_environment,
      });
    }
    return endpoints;
  }

  void announce(JoinOptions& join) const {
    if (shm_) join.shm_socket = shm_->address();
    if (ucx_ && *ucx_) join.ucx_address = (*ucx_)->address();
  }
  // The processes on this node go to the membership, to be watched.
  Result<std::vector<std::unique_ptr<Transport>>> connect(Membership& membership) {
    const Member& own = membership.members()[membership.rank()];
    std::vector<ShmAddress> near;
    std::vector<UcxAddress> far;
    std::vector<int> apart;  // near and yet far
    for (const Member& member : membership.members()) {
      if (member.rank == own.rank) continue;
      const bool is_near = choice_ != TransportChoice::kUcx && member.node == own.node;
      if (is_near && (choice_ == TransportChoice::kShm || ShmEndpoint::may_share(own.shm_socket, member.shm_socket))) {
        near.push_back({.rank = member.rank, .address = member.shm_socket});
      } else {
        far.push_back({.rank = member.rank, .address = member.ucx_address});
        if (is_near) apart.push_back(member.rank);
      }
    }
    if (!apart.empty() && shm_) {
      log::warn(
          "rank {}: UCX takes the place of shared memory with {}, on the same node: no shared memory there, or "
          "another user",
          own.rank, rank_list(apart));
    }

    std::vector<std::unique_ptr<Transport>> transports;
    if (!near.empty()) {
      ASSIGN_OR_RETURN(std::unique_ptr<Transport> shm, connect_near(near, membership));
      transports.push_back(std::move(shm));
    }
    if (!far.empty()) {
      ASSIGN_OR_RETURN(std::unique_ptr<Transport> ucx, connect_far(far, membership));
      transports.push_back(std::move(ucx));
    }
    return transports;
  }

 private:
  Result<std::unique_ptr<Transport>> connect_near(std::span<const ShmAddress> near, Membership& membership) {
    ASSIGN_OR_RETURN(std::unique_ptr<ShmTransport> shm, shm_->connect(near));
    for (const PeerProcess& process : shm->take_peer_pidfds())
      if (process.pidfd) RETURN_IF_ERROR(membership.watch_process(process.rank, process.pidfd.get()));
    return shm;
  }

  Result<std::unique_ptr<Transport>> connect_far(std::span<const UcxAddress> far, const Membership& membership) {
    if (!ucx_) {
      const Member& member = membership.members()[far.front().rank];
      const bool is_near = member.node == membership.members()[membership.rank()].node;
      return make_error(ErrorCode::kUnsupported, "{} {}", member.name(),
                        is_near ? "shares no memory with this rank, which needs --transports ucx"
                                : "is on another node, which --transports shm cannot reach");
    }
    RETURN_IF_ERROR(*ucx_);
    log::info("rank {}: {}", membership.rank(), (*ucx_)->settings());
    return (*ucx_)->connect(far);
  }

  TransportChoice choice_ = TransportChoice::kAuto;
  std::optional<ShmEndpoint> shm_;
  std::optional<Result<UcxEndpoint>> ucx_;  // an error matters only if it turns out to be needed
};

MeshOptions mesh_options(const Membership& membership, std::chrono::milliseconds deadline) {
  const std::vector<Member>& members = membership.members();
  MeshOptions options{.rank = membership.rank(), .size = membership.size(), .deadline = deadline};
  for (const Member& member : members) options.rank_names.push_back(member.name());
  const auto num_cores = std::ssize(members[membership.rank()].cores);
  if (core_sharers(members, membership.rank()).count <= num_cores) options.spin = kSpin;
  return options;
}

Result<std::unique_ptr<Mesh>> connect_mesh(Endpoints& endpoints, Membership& membership, const WorldOptions& options) {
  auto transports = endpoints.connect(membership);
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
  ASSIGN_OR_RETURN(Endpoints endpoints, Endpoints::open(options));
  endpoints.announce(options.join);
  ASSIGN_OR_RETURN(std::unique_ptr<Membership> membership, Membership::join(options.join));
  ASSIGN_OR_RETURN(std::unique_ptr<Mesh> mesh, connect_mesh(endpoints, *membership, options));
  log_transports(*mesh);
  return std::unique_ptr<World>(new World(std::move(mesh), std::move(membership)));
}

World::World(std::unique_ptr<Mesh> mesh, std::unique_ptr<Membership> membership)
    : mesh_(std::move(mesh)), membership_(std::move(membership)) {
  membership_->set_lost_handler([&mesh = *mesh_](const LostRank& lost) {
    mesh.fail({.code = ErrorCode::kUnavailable, .message = lost.message()});
  });
}

}  // namespace cachalot
