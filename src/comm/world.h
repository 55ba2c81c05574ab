#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "comm/membership/membership.h"
#include "comm/mesh.h"

namespace cachalot {

enum class TransportChoice {
  kAuto,  // shared memory between ranks of one node, UCX between nodes
  kShm,   // only that: all ranks on one node
  kUcx,   // only that, within a node too
};

struct WorldOptions {
  JoinOptions join;  // its transport addresses are filled in here
  TransportChoice transports = TransportChoice::kAuto;
  std::string network_interface;               // of UCX; empty: the one that reaches rank 0's address
  std::vector<std::string> ucx_environment;    // "UCX_TLS=tcp": what the user has set in the environment
  std::chrono::milliseconds deadline{60'000};  // of one wait of the mesh
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
