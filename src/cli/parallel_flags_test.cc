#include "cli/parallel_flags.h"

#include <gmock/gmock.h>
#include <stdlib.h>

namespace cachalot {
namespace {

ParallelOptions parse_parallel(std::vector<std::string> arguments) {
  CLI::App app;
  ParallelOptions options;
  add_parallel_flags(app, options);
  add_ignored_flags(app);
  std::ranges::reverse(arguments);  // as CLI11 wants them
  app.parse(arguments);
  return options;
}

// Environment variables of a test, gone with it.
class Environment {
 public:
  explicit Environment(std::vector<std::pair<std::string, std::string>> variables) : variables_(std::move(variables)) {
    for (const auto& [name, value] : variables_) setenv(name.c_str(), value.c_str(), 1);
  }
  ~Environment() {
    for (const auto& [name, value] : variables_) unsetenv(name.c_str());
  }

 private:
  std::vector<std::pair<std::string, std::string>> variables_;
};

TEST(ParallelFlags, OneRankIsTheDefault) {
  const ParallelOptions options = parse_parallel({});
  EXPECT_EQ(options.group_size(), 1);
  EXPECT_FALSE(options.spans_replicas());
}

TEST(ParallelFlags, ReadsTheEnvironmentOfAVllmDeployment) {
  const Environment environment({{"VLLM_DP_MASTER_IP", "192.168.1.2"},
                                 {"VLLM_DP_MASTER_PORT", "54999"},
                                 {"VLLM_DP_SIZE", "8"},
                                 {"VLLM_DP_RANK", "3"},
                                 {"TOPS_VISIBLE_DEVICES", "4,5,6,7"},
                                 {"ECCL_ALLTOALLV_MAXSIZE", "235929600"},
                                 {"GLOO_SOCKET_IFNAME", "ib0"},
                                 {"VLLM_GCU_ENABLE_SEQUENCE_PARALLEL", "1"}});
  const ParallelOptions options = parse_parallel({"--tensor-parallel-size=4", "--enable-expert-parallel",
                                                  "--trust-remote-code", "--quantization", "moe_wna16_gcu"});
  EXPECT_EQ(options.data_parallel_address, "192.168.1.2");
  EXPECT_EQ(options.data_parallel_rpc_port, 54999);
  EXPECT_THAT(options.visible_devices, testing::ElementsAre(4, 5, 6, 7));
  EXPECT_EQ(options.exchange_max_bytes, 235929600U);
  EXPECT_EQ(options.network_interface, "ib0");
  EXPECT_EQ(options.group_size(), 32);
  EXPECT_EQ(options.group_rank(), 12);
  EXPECT_TRUE(check_parallel_options(options));
}

TEST(ParallelFlags, AFlagWinsOverTheEnvironment) {
  const Environment environment(std::vector{std::pair<std::string, std::string>{"VLLM_DP_SIZE", "8"}});
  EXPECT_EQ(parse_parallel({"--data-parallel-size", "2"}).data_parallel_size, 2);
}

TEST(ParallelFlags, ReplicasWithoutExpertParallelismAreGroupsOfTheirOwn) {
  const ParallelOptions options = parse_parallel({"-t", "2", "--data-parallel-size", "3", "--data-parallel-rank", "1"});
  EXPECT_EQ(options.group_size(), 2);
  EXPECT_EQ(options.group_rank(), 0);
}

TEST(ParallelFlags, RefusesWhatDoesNotFitTogether) {
  const auto message = [](std::vector<std::string> arguments) {
    const Status status = check_parallel_options(parse_parallel(std::move(arguments)));
    return status ? "" : status.error().message;
  };
  EXPECT_THAT(message({"--data-parallel-size", "2", "--data-parallel-rank", "2"}), testing::HasSubstr("0 to 1"));
  EXPECT_THAT(message({"-t", "2", "--visible-devices", "0,1,2"}), testing::HasSubstr("3 devices for 2 ranks"));
}

}  // namespace
}  // namespace cachalot
