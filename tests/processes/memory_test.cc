// What a rank's process really holds.
#include <gtest/gtest.h>

#include <boost/json.hpp>

#include "base/file.h"
#include "golden_cases.h"
#include "processes/logits_run.h"
#include "processes/program.h"

namespace cachalot::test {
namespace {

constexpr int64_t kMiB = 1 << 20;
// The program, its libraries and heap, and what one small step touches of its work space.
constexpr int64_t kBesideWeights = 24 * kMiB;

// R1's shape with experts of about 180 MB in int4.
Status write_config(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, read_file(golden_folder("r1-bf16") + "/config.json"));
  boost::json::object config = boost::json::parse(text).as_object();
  config.erase("quantization_config");
  config["hidden_size"] = 1024;
  config["moe_intermediate_size"] = 512;
  config["num_hidden_layers"] = 8;
  return write_file(path, boost::json::serialize(config));
}

TEST(MemoryOfRanks, IsTheirShardsAndNotTheCheckpoints) {
  const ScratchFolder folder;
  const std::string config = folder / "config.json", model = folder / "model";
  ASSERT_TRUE(write_config(config));
  Program synth({"synth", "--config", config, "--out", model, "--quant", "awq"});
  ASSERT_EQ(synth.wait(std::chrono::minutes(2)), 0) << synth.output();

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
    EXPECT_GT(planned, 40 * kMiB) << "too small to tell";
    EXPECT_GT(resident, planned);
    EXPECT_LT(static_cast<double>(resident - kBesideWeights), 1.15 * static_cast<double>(planned)) << rank.at("rank");
  }
}

}  // namespace
}  // namespace cachalot::test
