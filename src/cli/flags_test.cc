#include "cli/flags.h"

#include <gmock/gmock.h>
#include <stdlib.h>

namespace cachalot {

namespace {

EngineOptions parse_engine(std::vector<std::string> arguments) {
  CLI::App app;
  EngineOptions options;
  add_engine_flags(app, options);
  arguments.insert(arguments.begin(), {"--model", "m"});
  std::ranges::reverse(arguments);  // as CLI11 wants them
  app.parse(arguments);
  return options;
}

TEST(EngineFlags, DefaultsAreThoseOfTheOptions) {
  const EngineOptions options = parse_engine({}), defaults;
  EXPECT_EQ(options.model, "m");
  EXPECT_EQ(options.dtype, defaults.dtype);
  EXPECT_EQ(options.isa, defaults.isa);
  EXPECT_EQ(options.enable_prefix_caching, true);
  EXPECT_EQ(options.prefix_cache_across_roles, false);
  EXPECT_EQ(options.block_size, 64);
  EXPECT_EQ(options.scheduling_policy, SchedulingPolicy::kFcfs);
}

TEST(EngineFlags, SwitchesHaveAnOpposite) {
  EXPECT_FALSE(parse_engine({"--no-enable-prefix-caching"}).enable_prefix_caching);
  EXPECT_TRUE(parse_engine({"--enable-prefix-caching"}).enable_prefix_caching);
}

TEST(EngineFlags, ReadsVllmsNames) {
  const EngineOptions options =
      parse_engine({"--dtype=bfloat16", "--max-model-len=2048", "--block-size=64", "--num-scheduler-steps", "8",
                    "--scheduling-policy", "priority", "--gpu-memory-utilization=0.8", "--activation-dtype", "int8",
                    "--isa", "avx2"});
  EXPECT_EQ(options.dtype, DTypeOption::kBFloat16);
  EXPECT_EQ(options.max_model_len, 2048);
  EXPECT_EQ(options.num_scheduler_steps, 8);
  EXPECT_EQ(options.scheduling_policy, SchedulingPolicy::kPriority);
  EXPECT_EQ(options.gpu_memory_utilization, 0.8);
  EXPECT_EQ(options.activation_dtype, ActivationDTypeOption::kInt8);
  EXPECT_EQ(options.isa, IsaOption::kAvx2);
}

TEST(EngineFlags, RefusesValuesOutOfRange) {
  EXPECT_THROW(parse_engine({"--dtype", "float16"}), CLI::ValidationError);
  EXPECT_THROW(parse_engine({"--gpu-memory-utilization", "1.5"}), CLI::ValidationError);
  EXPECT_THROW(parse_engine({"--max-num-seqs", "0"}), CLI::ValidationError);
}

ParallelOptions parse_parallel(std::vector<std::string> arguments) {
  CLI::App app;
  ParallelOptions options;
  add_parallel_flags(app, options);
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
  const ParallelOptions options = parse_parallel({"--tensor-parallel-size=4", "--enable-expert-parallel"});
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

TEST(ParallelFlags, ReadsTheKeysOfVllmsEplbConfigAndNamesOneThatIsNone) {
  const ParallelOptions options =
      parse_parallel({"--enable-eplb", "--eplb-config",
                      R"({"num_redundant_experts": 32, "window_size": 200, "step_interval": 400, "use_async": false,
                          "log_balancedness": true, "log_balancedness_interval": 50, "policy": "default"})",
                      "--survive", "node"});
  EXPECT_TRUE(options.eplb.enabled);
  EXPECT_EQ(options.eplb.num_redundant_experts, 32);
  EXPECT_EQ(options.eplb.window_size, 200);
  EXPECT_EQ(options.eplb.step_interval, 400);
  EXPECT_TRUE(options.eplb.log_balancedness);
  EXPECT_EQ(options.eplb.log_balancedness_interval, 50);
  EXPECT_EQ(options.survive, Survive::kNode);
  const auto refusal = [](const std::string& config) -> std::string {
    try {
      parse_parallel({"--eplb-config", config});
    } catch (const CLI::ValidationError& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_THAT(refusal(R"({"num_redundant_expert": 1})"),
              testing::HasSubstr("no key 'num_redundant_expert'; there are window_size, step_interval, num_"));
  EXPECT_THAT(refusal(R"({"step_interval": 0})"), testing::HasSubstr("step_interval"));
  EXPECT_EQ(parse_parallel({}).survive, Survive::kNone);
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

TEST(ApiKeys, ComeFromTheFlagElseFromTheEnvironment) {
  const auto keys_with = [](std::vector<std::string> keys, std::vector<std::pair<std::string, std::string>> variables) {
    const Environment environment(std::move(variables));
    EXPECT_TRUE(complete_api_keys(keys, ""));
    return keys;
  };
  EXPECT_THAT(keys_with({}, {}), testing::IsEmpty());
  EXPECT_THAT(keys_with({}, {{"VLLM_API_KEY", "v"}}), testing::ElementsAre("v"));
  EXPECT_THAT(keys_with({}, {{"VLLM_API_KEY", "v"}, {"CACHALOT_API_KEY", "c"}}), testing::ElementsAre("c"));
  EXPECT_THAT(keys_with({"f"}, {{"VLLM_API_KEY", "v"}, {"CACHALOT_API_KEY", "c"}}), testing::ElementsAre("f"));
  EXPECT_THAT(keys_with({}, {{"VLLM_API_KEY", ""}}), testing::IsEmpty());
}

TEST(ApiKeys, AnEmptyOneIsRefused) {
  std::vector<std::string> keys = {"a", ""};
  EXPECT_FALSE(complete_api_keys(keys, ""));
}

}  // namespace

}  // namespace cachalot
