#pragma once

#include <optional>
#include <string>
#include <vector>

#include "cluster/run_folder.h"
#include "serve/server_state.h"

namespace cachalot {

// What the servers say of themselves (serve/server_state.h), in the order of the cluster's replicas; nothing: not
// reached.
using ServerStates = std::vector<std::optional<ServerState>>;

// Asks all servers, which may take a few seconds where one does not answer.
ServerStates collect_states(const ClusterState& state);

// For a person: replicas, their load, ranks.
std::string status_text(const ClusterState& state, const ServerStates& servers);
// Its part about ranks: where each runs, and which experts it holds.
std::string rank_map_text(const ClusterState& state, const ServerStates& servers);
// The same as status_text() for a program.
std::string status_json(const ClusterState& state, const ServerStates& servers);

// What the servers did between two looks, so many seconds apart; empty: nothing can be said.
std::string rates_text(const ServerStates& before, const ServerStates& now, double seconds);
// A text as a page of a terminal of that size, drawn over the one before: lines that are too long are cut, and where
// there are too many the last one says how many more there are.
std::string terminal_page(std::string_view text, int num_rows, int num_columns);

// How far a start is, one line a member: "  replica 0  http://192.168.1.2:7555  rank 0 40%  rank 1 ready".
std::vector<std::string> progress_lines(const ClusterState& state);

// Columns as wide as their widest cell, two spaces apart; the first row is the head.
std::string table_text(const std::vector<std::vector<std::string>>& rows);

}  // namespace cachalot
