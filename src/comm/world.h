#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include "base/error.h"
#include "comm/membership/membership.h"
#include "comm/mesh.h"
#include "comm/shm/shm_endpoint.h"
#include "comm/ucx/ucx_endpoint.h"

namespace cachalot {

enum class TransportChoice {
  kAuto,  // shared memory between ranks of one node, UCX between nodes
  kShm,   // only that: all ranks on one node
  kUcx,   // only that, within a node too
};

// Longer than it takes to wake a sleeper (6 us, on virtual machines up to 40): two ranks of which one came late once
// would send each other to sleep for good. Still longer looks are lost on others.
inline constexpr std::chrono::microseconds kSpin{50};

struct WorldOptions {
  JoinOptions join;  // its transport addresses are filled in here
  TransportChoice transports = TransportChoice::kAuto;
  std::string network_interface;                       // of UCX; empty: the one that reaches rank 0's address
  std::vector<std::string> ucx_environment;            // "UCX_TLS=tcp": what the user has set in the environment
  std::chrono::milliseconds deadline{60'000};          // of one wait of the mesh
  std::chrono::milliseconds connect_deadline{10'000};  // for all peers to connect
};

// A rank's ways to the others in one epoch. They are opened before it is decided who takes part, as how the rank is
// found travels with the decision; which of them are needed is known only afterwards. Used by one thread.
class RankWays {
 public:
  static Result<RankWays> open(const WorldOptions& options);

  std::string shm_socket() const { return shm_ ? shm_->address() : ""; }
  std::string ucx_address() const { return ucx_ && *ucx_ ? (*ucx_)->address() : ""; }
  // What another rank needs to find this one: `own` with the addresses above, as bytes.
  std::string card(Member own) const;
  static Result<Member> read_card(std::string_view card);

  // Is given the processes on this node, to be watched.
  using Watch = std::function<Status(int rank, int pidfd)>;
  // Once. members: all that take part, this rank among them. stop: the epoch is over before it has come to be.
  Result<std::vector<std::unique_ptr<Transport>>> connect(uint32_t epoch, std::span<const Member> members,
                                                          const Watch& watch, const std::stop_token& stop = {});

 private:
  Result<std::unique_ptr<Transport>> connect_near(uint32_t epoch, std::span<const ShmAddress> near, const Watch& watch,
                                                  const std::stop_token& stop);
  Result<std::unique_ptr<Transport>> connect_far(uint32_t epoch, std::span<const UcxAddress> far, const Member& own,
                                                 const Member& first, const std::stop_token& stop);

  int rank_ = 0;
  TransportChoice choice_ = TransportChoice::kAuto;
  std::optional<ShmEndpoint> shm_;
  std::optional<Result<UcxEndpoint>> ucx_;  // an error matters only if it turns out to be needed
};

// This rank's place among all ranks: its membership, and its mesh, which fails when the membership loses a rank.
class World {
 public:
  // Waits for all ranks and connects to them. A world of one needs neither thread nor socket. Errors: those of
  // Membership::join(); a rank cannot be reached, which then ends the start of all others too.
  static Result<std::unique_ptr<World>> form(WorldOptions options);

  int rank() const { return membership_->rank(); }
  int size() const { return membership_->size(); }
  const std::vector<Member>& members() const { return membership_->members(); }
  Mesh& mesh() { return *mesh_; }
  Membership& membership() { return *membership_; }

 private:
  World(std::unique_ptr<Mesh> mesh, std::unique_ptr<Membership> membership);

  std::unique_ptr<Mesh> mesh_;
  std::unique_ptr<Membership> membership_;  // goes first: it tells the mesh of losses, and the others of the goodbye
};

}  // namespace cachalot
