// The files of deploy/ name flags and keys that exist.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <yaml-cpp/yaml.h>

#include <CLI/CLI.hpp>
#include <regex>

#include "base/file.h"
#include "cli/commands.h"
#include "config/cluster_file.h"

namespace cachalot::test {
namespace {

std::string text_of(const std::string& file) {
  return read_file(CACHALOT_SOURCE_DIR "/" + file).value();
}

// Every "cachalot SUBCOMMAND --flag ..." of a text, line continuations joined.
void expect_known_flags(std::string text, size_t num_commands) {
  text = std::regex_replace(text, std::regex(R"(\\\n\s*)"), " ");
  CLI::App app;
  add_serve_command(app);
  add_router_command(app);
  add_up_command(app);
  add_check_command(app);
  const std::regex command(R"(cachalot"? (serve|router|up|check) ([^\n]*))"), flag("--[a-z][a-z-]*");
  size_t found = 0;
  for (std::sregex_iterator at(text.begin(), text.end(), command), end; at != end; ++at, ++found) {
    const CLI::App* const subcommand = app.get_subcommand((*at)[1].str());
    const std::string words = (*at)[2].str();
    for (std::sregex_iterator word(words.begin(), words.end(), flag); word != std::sregex_iterator(); ++word)
      EXPECT_TRUE(subcommand->get_option_no_throw(word->str())) << (*at)[1] << " has no " << word->str();
  }
  EXPECT_EQ(found, num_commands);
}

TEST(Deploy, KubernetesManifestIsOnePodAMachineWithServersAndOneRouter) {
  const std::vector<YAML::Node> documents = YAML::LoadAll(text_of("deploy/leaderworkerset.yaml"));
  ASSERT_EQ(documents.size(), 2u);
  EXPECT_EQ(documents[0]["kind"].as<std::string>(), "LeaderWorkerSet");
  const YAML::Node group = documents[0]["spec"]["leaderWorkerTemplate"];
  EXPECT_EQ(group["size"].as<int>(), 4);
  EXPECT_EQ(group["restartPolicy"].as<std::string>(), "RecreateGroupOnPodRestart");
  const auto containers = [&](const char* role) { return group[role]["spec"]["containers"]; };
  ASSERT_EQ(containers("leaderTemplate").size(), 2u);
  ASSERT_EQ(containers("workerTemplate").size(), 1u);
  const auto script = [](const YAML::Node& container) { return container["command"][2].as<std::string>(); };
  EXPECT_EQ(script(containers("leaderTemplate")[0]), script(containers("workerTemplate")[0]));
  expect_known_flags(script(containers("workerTemplate")[0]), 1);
  expect_known_flags(script(containers("leaderTemplate")[1]), 1);
  // Which probe is which: docs/deployment.md.
  const auto path_of = [](const YAML::Node& container, const char* probe) {
    return container[probe]["httpGet"]["path"].as<std::string>();
  };
  for (const YAML::Node& container : containers("leaderTemplate")) {
    EXPECT_EQ(path_of(container, "livenessProbe"), "/live");
    EXPECT_EQ(path_of(container, "readinessProbe"), "/health");
  }
  EXPECT_EQ(path_of(containers("workerTemplate")[0], "startupProbe"), "/live");
  // The Service finds the router.
  const YAML::Node service = documents[1]["spec"];
  EXPECT_EQ(service["selector"]["role"].as<std::string>(),
            group["leaderTemplate"]["metadata"]["labels"]["role"].as<std::string>());
  EXPECT_EQ(service["ports"][0]["targetPort"].as<int>(),
            containers("leaderTemplate")[1]["ports"][0]["containerPort"].as<int>());
}

TEST(Deploy, SlurmScriptWritesAClusterFileThatIsRead) {
  const std::string script = text_of("deploy/slurm.sbatch");
  std::string yaml = script.substr(script.find("<<YAML\n") + 7);
  yaml = yaml.substr(0, yaml.find("\nYAML\n"));
  // As the shell fills it in.
  yaml = std::regex_replace(yaml, std::regex(R"(\$\{[A-Z_]+:-([^}]*)\})"), "$1");
  for (const auto& [variable, value] : {std::pair("$SLURM_JOB_ID", "7"),
                                        {"$model", "/models/r1"},
                                        {"$cachalot", "/opt/cachalot/bin/cachalot"},
                                        {"$devices", "8"},
                                        {"$tensor_parallel_size", "4"}}) {
    const size_t at = yaml.find(variable);
    ASSERT_NE(at, std::string::npos) << variable;
    yaml.replace(at, std::string(variable).size(), value);
  }
  const Result<ClusterFile> cluster = parse_cluster_file(yaml, "cluster.yaml");
  ASSERT_TRUE(cluster) << cluster.error().message;
  EXPECT_EQ(cluster->launcher, Launcher::kSlurm);
  EXPECT_TRUE(cluster->nodes.empty());
  EXPECT_EQ(cluster->tensor_parallel_size, 4);
}

TEST(Deploy, UnitAndContainerNameCommandsThatExist) {
  expect_known_flags(text_of("deploy/cachalot.service"), 2);
}

}  // namespace
}  // namespace cachalot::test
