#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/file.h"
#include "config/json.h"
#include "preflight/cluster_check.h"

namespace cachalot {
namespace {

using testing::HasSubstr;

// A node that nothing is wrong with, and a model of R1's shape.
NodeReport sound_report() {
  return {.host = "n",
          .version = "0.1.0",
          .isa = "avx512",
          .num_cores = 64,
          .num_numa_domains = 2,
          .memory_bytes = uint64_t{512} << 30,
          .available_bytes = uint64_t{500} << 30,
          .memory_source = "node",
          .open_files = 65536,
          .most_open_files = 65536,
          .locked_bytes = NodeReport::kUnlimited,
          .interface = "ib0",
          .own_interface = "ib0",
          .fingerprint = "0123456789abcdef",
          .config_json = read_file(CACHALOT_SOURCE_DIR "/tests/data/configs/deepseek-r1.json").value(),
          .model_bytes = 1};
}

class Judge : public testing::Test {
 protected:
  Judge() {
    parallel_.tensor_parallel_size = 4;
    parallel_.data_parallel_size = 8;
    parallel_.enable_expert_parallel = true;
    engine_.model = "m";
    engine_.max_model_len = 4096;
    for (const char* address : {"a", "b", "c", "d"})
      checked_.nodes.push_back({.address = address, .num_ranks = 8, .num_sharing = 8, .report = sound_report()});
  }
  NodeReport& report(size_t node) { return *checked_.nodes[node].report; }
  std::string judged() {
    judge_nodes(engine_, parallel_, checked_);
    return check_text(checked_);
  }
  int count(Severity severity) const { return checked_.findings.count(severity); }

  EngineOptions engine_;
  ParallelOptions parallel_;
  CheckedCluster checked_;
};

TEST_F(Judge, FindsNothingAgainstASoundCluster) {
  EXPECT_THAT(judged(), HasSubstr("nothing stands against a start"));
  ASSERT_TRUE(checked_.nodes[3].memory);
  EXPECT_GT(checked_.nodes[3].memory->num_blocks, 64);
}

TEST_F(Judge, TellsWhatDiffersFromTheFirstNode) {
  report(2).version = "0.2.0";
  report(3).fingerprint = "beef";
  report(1).isa = "avx2";
  const std::string text = judged();
  EXPECT_THAT(text, HasSubstr("error: c: runs Cachalot 0.2.0, a runs 0.1.0"));
  EXPECT_THAT(text, HasSubstr("error: d: its model has the fingerprint beef"));
  EXPECT_THAT(text, HasSubstr("warning: b: its CPU runs avx2, that of a avx512"));
  EXPECT_EQ(count(Severity::kError), 2);
  EXPECT_EQ(count(Severity::kWarning), 1);
  EXPECT_LT(text.find("error: d"), text.find("warning: b")) << "errors come first";
}

TEST_F(Judge, TellsWhatTheNetworkCannot) {
  report(0).taken_ports = {{7556, "Address already in use"}};
  report(1).address_fault = "Cannot assign requested address";
  report(2).interface = "lo";
  report(3).interface = "eth0";
  const std::string text = judged();
  EXPECT_THAT(text, HasSubstr("error: a: port 7556 cannot be listened on: Address already in use"));
  EXPECT_THAT(text, HasSubstr("error: b: nobody can listen at this address there"));
  EXPECT_THAT(text, HasSubstr("error: c: reaches the first node through its loopback"));
  EXPECT_THAT(text, HasSubstr("warning: d: reaches the first node through eth0, while its address is on ib0"));
}

// Debian's /etc/hosts: a node's own name is 127.0.1.1 there.
TEST_F(Judge, AnAddressOnTheLoopbackOfItsNodeIsAnErrorWhoseAdviceMendsIt) {
  report(1).own_interface = "lo";
  report(0).own_interface = report(0).interface = "lo";
  const std::string text = judged();
  for (const char* node : {"a", "b"})
    EXPECT_THAT(text, HasSubstr(fmt::format("error: {}: there this is an address of its loopback", node)));
  EXPECT_THAT(text, HasSubstr("take its name off the line of 127.0.1.1 in its /etc/hosts"));
  EXPECT_THAT(text, testing::Not(HasSubstr("network-interface: lo")));
  EXPECT_EQ(count(Severity::kError), 2);
}

TEST_F(Judge, TellsOfMemoryThatIsTooSmallOrTaken) {
  report(1).memory_bytes = uint64_t{64} << 30;
  report(2).available_bytes = uint64_t{100} << 30;
  const std::string text = judged();
  EXPECT_THAT(text, HasSubstr("error: b: the model does not fit"));
  EXPECT_THAT(text, HasSubstr("warning: c: its 8 ranks plan"));
  EXPECT_EQ(count(Severity::kError), 1);
}

TEST_F(Judge, TellsOnceThatALayoutDoesNotDivide) {
  parallel_.tensor_parallel_size = 3;
  EXPECT_THAT(judged(), HasSubstr("error: 128 attention heads cannot be shared out evenly over 3"));
  EXPECT_EQ(count(Severity::kError), 1);
}

TEST_F(Judge, TellsOfLimitsAndClocks) {
  report(0).open_files = 1024;
  report(1).rdma_devices = "mlx5_0:1";
  report(1).locked_bytes = 8 << 20;
  report(2).shared_memory_fault = "memfd_create: Operation not permitted";
  checked_.nodes[3].clock_difference = -3.5;
  report(3).num_cores = 4;
  const std::string text = judged();
  EXPECT_THAT(text, HasSubstr("warning: a: a process may open 1024 files"));
  EXPECT_THAT(text, HasSubstr("error: b: a process may lock 8.0 MiB of memory, and RDMA (mlx5_0:1) locks"));
  EXPECT_THAT(text, HasSubstr("error: c: ranks cannot share memory: memfd_create"));
  EXPECT_THAT(text, HasSubstr("warning: d: its clock is 3.5 s behind this machine's"));
  EXPECT_THAT(text, HasSubstr("warning: d: 8 ranks share 4 cores"));
}

TEST_F(Judge, WhatANodeSaysMovesNoCursor) {
  const std::string odd = "\x1b[2J\nx";
  for (std::string* text : {&report(1).host, &report(1).version, &report(1).isa, &report(1).interface_fault,
                            &report(1).model_fault, &report(1).interface, &report(1).fingerprint})
    *text = odd;
  checked_.nodes[2].report.reset();
  checked_.nodes[2].silence = odd;
  const std::string text = judged();
  EXPECT_EQ(text.find('\x1b'), std::string::npos) << text;
  EXPECT_THAT(text, HasSubstr("c: cannot be asked: \\x1b[2J\\nx"));
}

TEST_F(Judge, ClockWithinWhatCanBeToldIsNoFault) {
  checked_.nodes[1].clock_difference = 1.5;
  checked_.nodes[1].clock_uncertainty = 1;
  judged();
  EXPECT_EQ(count(Severity::kWarning), 0);
}

TEST_F(Judge, NodesThatDoNotAnswerAreErrorsAndTheOthersAreJudgedAllTheSame) {
  checked_.nodes[0].report.reset();
  checked_.nodes[0].silence = "ended with status 255: Connection refused";
  report(2).tokenizer_fault = "m/tokenizer.json is not there";
  const std::string text = judged();
  EXPECT_THAT(text, HasSubstr("error: a: cannot be asked: ended with status 255: Connection refused"));
  EXPECT_THAT(text, HasSubstr("error: c: m/tokenizer.json is not there"));
  EXPECT_TRUE(checked_.nodes[1].memory);
}

TEST_F(Judge, SlowLinksAreToldOfBesideTheUsualOne) {
  checked_.links = LinkMatrix{.size = 4, .figures = std::vector<LinkFigure>(16, {10, 1e9})};
  checked_.links->at(1, 3).bytes_per_second = 1e8;
  checked_.links->at(2, 0).microseconds = 300;
  judge_links(checked_);
  const std::string text = check_text(checked_);
  EXPECT_THAT(text, HasSubstr("warning: b: its link to d has 0.10 GB/s"));
  EXPECT_THAT(text, HasSubstr("warning: c: its link to a has 1.00 GB/s and 300.0 us"));
  EXPECT_EQ(count(Severity::kWarning), 2);
}

TEST(NodeReports, TravelAsOneLineOfJson) {
  NodeReport report = sound_report();
  report.taken_ports = {{7555, "x\ny"}};
  const std::string line = to_json_line(report);
  EXPECT_EQ(line.find('\n'), std::string::npos);
  const Result<NodeReport> read = from_json_line<NodeReport>(line);
  ASSERT_TRUE(read) << read.error().message;
  EXPECT_EQ(to_json_line(*read), line);
  EXPECT_EQ(read->locked_bytes, NodeReport::kUnlimited);
  EXPECT_FALSE(from_json_line<NodeReport>("{}"));
  EXPECT_FALSE(from_json_line<NodeReport>("ssh: no route"));
}

TEST(NodeReports, OfThisMachineNameTakenPortsAndForeignAddresses) {
  const NodeReport report = inspect_node({.address = "192.0.2.1", .first_address = "127.0.0.1", .model = "/nowhere"});
  EXPECT_FALSE(report.address_fault.empty());
  EXPECT_THAT(report.model_fault, HasSubstr("/nowhere"));
  EXPECT_EQ(report.interface, "lo");
  EXPECT_GT(report.num_cores, 0);
  EXPECT_GT(report.memory_bytes, 0u);
  EXPECT_EQ(report.shared_memory_fault, "");
}

}  // namespace
}  // namespace cachalot
