#include "processes/served_group.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "base/text.h"

namespace cachalot::test {

std::string nano_folder() {
  return std::string(CACHALOT_SOURCE_DIR) + "/models/nano";
}

ServedGroup::ServedGroup(const ServedGroupOptions& options) : layout_(options.layout) {
  const std::string meeting_port = std::to_string(free_port());
  const auto address_of = [&](int dp_rank) {
    return options.nodes.empty() ? "127.0.0.1" : options.nodes[static_cast<size_t>(dp_rank)].address;
  };
  for (int dp_rank = 0; dp_rank < layout_.dp_size; dp_rank++) {
    std::vector<std::string> flags{"serve",
                                   "--model",
                                   options.model,
                                   "--host",
                                   address_of(dp_rank),
                                   "--port",
                                   "0",
                                   "--data-parallel-address",
                                   address_of(0),
                                   "--data-parallel-size",
                                   std::to_string(layout_.dp_size),
                                   "--data-parallel-rank",
                                   std::to_string(dp_rank),
                                   "--data-parallel-rpc-port",
                                   meeting_port,
                                   "--tensor-parallel-size",
                                   std::to_string(layout_.tp_size),
                                   "--num-gpu-blocks-override",
                                   "256",
                                   "--max-model-len",
                                   "2048"};
    if (layout_.expert_parallel) flags.emplace_back("--enable-expert-parallel");
    flags.insert(flags.end(), options.more_flags.begin(), options.more_flags.end());
    if (options.nodes.empty()) {
      replicas_.push_back(std::make_unique<Program>(flags));
    } else {  // `ip` becomes the program
      flags.insert(flags.begin(),
                   {"netns", "exec", options.nodes[static_cast<size_t>(dp_rank)].name, CACHALOT_PROGRAM});
      replicas_.push_back(std::make_unique<Program>(flags, "/usr/sbin/ip"));
    }
  }
  for (const auto& replica : replicas_) {
    const std::string before = fmt::format("ready: http://{}:", address_of(static_cast<int>(&replica - &replicas_[0])));
    const auto line = replica->wait_for_line(before, std::chrono::seconds(60));
    if (!line) {
      ADD_FAILURE() << "a replica is not ready\n" << output();
      return;
    }
    const std::string_view text = line->text;
    ports_.push_back(leading_number<uint16_t>(text.substr(text.find(before) + before.size())));
  }
}

pid_t ServedGroup::pid_of(int rank) const {
  const Program& leader = *replicas_[static_cast<size_t>(rank / layout_.tp_size)];
  const int tp_rank = rank % layout_.tp_size;
  return tp_rank == 0 ? leader.pid() : leader.children().at(static_cast<size_t>(tp_rank - 1));
}

std::string ServedGroup::output() const {
  std::string all;
  for (size_t dp_rank = 0; dp_rank < replicas_.size(); dp_rank++)
    all += fmt::format("--- replica {}\n{}", dp_rank, replicas_[dp_rank]->output());
  return all;
}

}  // namespace cachalot::test
