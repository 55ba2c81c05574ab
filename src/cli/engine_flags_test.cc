#include "cli/engine_flags.h"

#include <gtest/gtest.h>

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

}  // namespace
}  // namespace cachalot
