#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "agents/running_agent.h"
#include "base/file.h"
#include "base/text.h"
#include "cli/commands.h"
#include "cli/flags.h"

namespace cachalot {
namespace {

using agents::AgentAddress;
using agents::GroupView;

constexpr std::chrono::seconds kPatience{5};

struct ConfirmFlags {
  std::string node, group_secret_file;
  AgentsOptions agents;
  bool yes = false;
};

// By number, or all on that host.
Result<std::vector<int>> lost_servers(const std::string& node, const std::vector<AgentAddress>& agents) {
  std::vector<int> lost;
  for (int server = 0; server < std::ssize(agents); server++) {
    const AgentAddress& address = agents[static_cast<size_t>(server)];
    if (node == std::to_string(server) || node == address.host || node == address.text()) lost.push_back(server);
  }
  if (!lost.empty() && lost.size() < agents.size()) return lost;
  std::vector<std::string> names;
  for (const AgentAddress& address : agents) names.push_back(address.text());
  return make_parameter_error("node", "{} is {} of the group's {} ({})", cachalot::quoted(node),
                              lost.empty() ? "none" : "all", counted(std::ssize(agents), "server"), listed(names));
}

// The one that would go on: where a majority is left, that which leads it.
Result<GroupView> side_that_goes_on(const std::vector<AgentAddress>& agents, const std::vector<int>& lost,
                                    const std::string& secret) {
  std::optional<GroupView> side;
  std::string silent;
  for (int server = 0; server < std::ssize(agents); server++) {
    if (std::ranges::find(lost, server) != lost.end()) continue;
    const AgentAddress& address = agents[static_cast<size_t>(server)];
    const auto answer = agents::ask_agent(address, secret, {}, kPatience);
    if (!answer) {
      silent += fmt::format("{}{}: {}", silent.empty() ? "" : "; ", address.text(), answer.error().message);
    } else if (!side || answer->view.leads) {
      side = answer->view;
    }
  }
  if (side) return *side;
  return make_error(ErrorCode::kUnavailable, "no agent answers ({})", silent);
}

std::string explanation(const GroupView& side, const std::vector<int>& lost) {
  std::vector<int> heard;
  int num_members = 0, num_left = 0;
  for (const GroupView::Server& server : side.servers) {
    num_members += server.num_members;
    if (!server.is_heard) continue;
    num_left += server.num_members;
    heard.push_back(server.server);
  }
  return fmt::format(
      "To be given up: server {}.\n"
      "The agent of server {} goes on, with those that it hears: server {}; {} of the {} ranks that were there last.\n"
      "{}",
      fmt::join(lost, ", "), side.server, fmt::join(heard, ", "), num_left, num_members,
      side.has_majority
          ? "They are a majority and go on anyway: a group that begins anew will not wait for the others.\n"
          : "They are no majority. If what is given up still runs, cut off from these, it waits, and joins them when "
            "it is back;\nnobody must confirm a loss on its side, or two groups would serve.\n");
}

bool is_confirmed() {
  fmt::print("Go on? [y/N] ");
  std::fflush(stdout);
  std::string answer;
  std::getline(std::cin, answer);
  return answer == "y" || answer == "yes";
}

Status confirm_lost(const ConfirmFlags& flags) {
  std::vector<AgentAddress> agents;
  for (const std::string& text : flags.agents.addresses) {
    ASSIGN_OR_RETURN(AgentAddress address, agents::parse_agent_address(text));
    agents.push_back(std::move(address));
  }
  std::string secret;
  if (!flags.group_secret_file.empty()) {
    ASSIGN_OR_RETURN(secret, read_file(flags.group_secret_file, kMostHandwrittenBytes));
  }
  ASSIGN_OR_RETURN(const std::vector<int> lost, lost_servers(flags.node, agents));
  ASSIGN_OR_RETURN(const GroupView side, side_that_goes_on(agents, lost, secret));
  fmt::print("{}", explanation(side, lost));
  if (!flags.yes && !is_confirmed()) return make_error(ErrorCode::kCancelled, "nothing was changed");
  ASSIGN_OR_RETURN(const auto answer,
                   agents::ask_agent(agents[static_cast<size_t>(side.server)], secret, {.lost = lost}, kPatience));
  if (answer.is_refused) return make_error(ErrorCode::kInvalidArgument, "{}", cachalot::escaped(answer.why));
  fmt::print("The group goes on from the agent of server {}.\n", side.server);
  return {};
}

}  // namespace

void add_confirm_lost_command(CLI::App& app) {
  auto flags = std::make_shared<ConfirmFlags>();
  CLI::App* command = app.add_subcommand("confirm-lost", "Let what is left of a group go on without a lost node");
  command->add_option("node", flags->node, "Its address, or the number of a server")->required();
  add_agents_flag(*command, flags->agents)->required();
  add_group_secret_flag(*command, flags->group_secret_file);
  command->add_flag("-y,--yes", flags->yes, "Do not ask");
  command->footer(
      "A group of two servers without a witness waits when one of them is gone: nobody can know whether it serves\n"
      "somewhere else. Whoever knows that it does not says so with this.");
  command->callback([flags] { finish_command(confirm_lost(*flags)); });
}

}  // namespace cachalot
