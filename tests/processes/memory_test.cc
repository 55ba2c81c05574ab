// What a rank's process really holds.
#include <gtest/gtest.h>

#include <boost/json.hpp>

#include "base/file.h"
#include "golden_cases.h"
#include "processes/logits_run.h"
#include "processes/program.h"

namespace cachalot::test {
namespace {

#ifdef __SANITIZE_ADDRESS__
constexpr bool kIsPlain = false;  // the sanitizer's own memory is as much again
#else
constexpr bool kIsPlain = true;
#endif

constexpr int64_t kMiB = 1 << 20;
// The program, its libraries and heap, and what one small step touches of its work space.
constexpr int64_t kBesideWeights = 24 * kMiB;

struct Size {
  int num_layers = 8, expert_width = 512;  // about 180 MB in int4
};

// R1's shape, narrow.
Status write_config(const std::string& path, const Size& size) {
  ASSIGN_OR_RETURN(const std::string text, read_file(golden_folder("r1-bf16") + "/config.json"));
  boost::json::object config = boost::json::parse(text).as_object();
  config.erase("quantization_config");
  config["hidden_size"] = 1024;
  config["moe_intermediate_size"] = size.expert_width;
  config["num_hidden_layers"] = size.num_layers;
  return write_file(path, boost::json::serialize(config));
}

void expect_shards_alone(const Size& size, int64_t least_bytes) {
  if (!kIsPlain) GTEST_SKIP() << "what AddressSanitizer needs itself is not told from the rest";
  const ScratchFolder folder;
  const std::string config = folder / "config.json", model = folder / "model";
  ASSERT_TRUE(write_config(config, size));
  Program synth({"synth", "--config", config, "--out", model, "--quant", "awq"});
  ASSERT_EQ(synth.wait(std::chrono::minutes(5)), 0) << synth.output();

  const LogitsAnswer answer = run_logits({.model = model,
                                          .layout = {.dp_size = 4, .tp_size = 1},
                                          .tokens = {0, 5, 9},
                                          .replica = 1,
                                          .dtype = "bfloat16",
                                          .more_flags = {"--max-num-batched-tokens", "64"}});
  ASSERT_EQ(answer.ranks.size(), 4u);
  for (const boost::json::value& rank : answer.ranks) {
    const auto planned = rank.at("planned_weight_bytes").to_number<int64_t>(),
               resident = rank.at("resident_bytes").to_number<int64_t>();
    EXPECT_GT(planned, least_bytes) << "too small to tell";
    EXPECT_GT(resident, planned);
    EXPECT_LT(static_cast<double>(resident - kBesideWeights), 1.15 * static_cast<double>(planned)) << rank.at("rank");
  }
}

TEST(MemoryOfRanks, IsTheirShardsAndNotTheCheckpoints) {
  expect_shards_alone({}, 40 * kMiB);
}

// Of more than 2 GB.
TEST(MemoryOfRanks, IsTheirShardsOfALargeCheckpoint) {
  expect_shards_alone({.num_layers = 32, .expert_width = 1536}, 512 * kMiB);
}

}  // namespace
}  // namespace cachalot::test
