#include <fmt/format.h>

#include <memory>

#include "base/file.h"
#include "cli/commands.h"
#include "cli/flags.h"
#include "config/model_config.h"
#include "placement/balance.h"

namespace cachalot {
namespace {

struct EplbFlags {
  std::vector<std::string> loads;
  std::string model, output;
  BalanceOptions balance;
  int num_spare = 0;
};

Result<ExpertLoad> read_loads(const std::vector<std::string>& files) {
  ExpertLoad sum;
  for (const std::string& file : files) {
    ASSIGN_OR_RETURN(const std::string text, read_file(file, kMostTableBytes));
    ASSIGN_OR_RETURN(ExpertLoad load, ExpertLoad::parse(text, file));
    if (sum.layers.empty()) {
      sum = std::move(load);
    } else if (const Status added = sum.add(load); !added) {
      return make_parameter_error("--load", "--load {}: {}", file, added.error().message);
    }
  }
  return sum;
}

Status run_eplb(EplbFlags& flags) {
  BalanceOptions& balance = flags.balance;
  if (balance.num_ranks % balance.num_nodes != 0)
    return make_parameter_error("--nodes", "--nodes {}: they cannot share {} ranks out evenly", balance.num_nodes,
                                balance.num_ranks);
  ASSIGN_OR_RETURN(const ExpertLoad load, read_loads(flags.loads));
  if (!flags.model.empty()) {
    ASSIGN_OR_RETURN(const ModelConfig config, load_model_config(flags.model));
    if (config.topk_method != TopkMethod::kGreedy) balance.num_groups = config.num_groups;
  }
  ASSIGN_OR_RETURN(ExpertPlacement placement, balanced_placement(load, balance, 1));
  std::vector<int> nodes;
  for (int rank = 0; rank < balance.num_ranks; rank++) nodes.push_back(rank * balance.num_nodes / balance.num_ranks);
  fmt::print(stderr, "rows of the busiest rank over the mean: {:.3f} evenly placed, {:.3f} by this placement\n",
             imbalance_of(even_placement(placement.shape()), load, nodes), imbalance_of(placement, load, nodes));
  if (flags.num_spare > 0) {
    ASSIGN_OR_RETURN(placement, with_spare_slots(placement, flags.num_spare));
  }
  if (!flags.output.empty()) return write_file(flags.output, placement.to_json());
  fmt::print("{}", placement.to_json());
  return {};
}

}  // namespace

void add_eplb_command(CLI::App& app) {
  auto flags = std::make_shared<EplbFlags>();
  CLI::App* command = app.add_subcommand("eplb", "Place experts, and copies of the busiest, by a recorded load");
  command->add_option("--load", flags->loads, "Files of what GET /expert_load answered, one of each server")
      ->required()
      ->check(CLI::ExistingFile);
  add_whole(*command, "--ranks", flags->balance.num_ranks, {.least = 1, .most = 4096},
            "Ranks that share the experts out")
      ->required();
  add_whole(*command, "--nodes", flags->balance.num_nodes, {.least = 1, .most = 4096}, "Nodes that they are on");
  add_whole(*command, "--num-redundant-experts", flags->balance.num_redundant, {.most = kMostRedundantExperts},
            "Slots of a layer beyond one for each expert");
  add_whole(*command, "--spare-slots", flags->num_spare, {.most = 1024}, "Empty slots of a layer on each rank besides");
  command->add_option(
      "--model", flags->model,
      "Folder of the model: tells how experts form groups, which stay on a node where that costs little");
  command->add_option("-o,--output", flags->output,
                      "Write the placement to this file; to the standard output if absent");
  command->footer("`serve` starts with it by --expert-placement FILE, and `check --plan` shows its price.");
  command->callback([flags] { finish_command(run_eplb(*flags)); });
}

}  // namespace cachalot
