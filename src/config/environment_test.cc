#include "config/environment.h"

#include <gmock/gmock.h>

#include <cstdlib>
#include <map>

namespace cachalot {

namespace {

TEST(Environment, FindsVariablesByTheBeginningOfTheirName) {
  setenv("CACHALOT_TEST_B", "two=2", 1);
  setenv("CACHALOT_TEST_A", "", 1);
  setenv("NOT_CACHALOT_TEST_C", "3", 1);
  EXPECT_THAT(environment_variables("CACHALOT_TEST_"),
              testing::ElementsAre("CACHALOT_TEST_A=", "CACHALOT_TEST_B=two=2"));
  EXPECT_THAT(environment_variables("CACHALOT_TEST_Z"), testing::IsEmpty());
}

using testing::HasSubstr;
using Variables = std::map<std::string, std::string>;

Result<std::optional<LaunchedRank>> read(const Variables& variables) {
  return read_launched_rank([&](const std::string& name) -> std::optional<std::string> {
    const auto found = variables.find(name);
    return found == variables.end() ? std::nullopt : std::optional(found->second);
  });
}

LaunchedRank rank_of(const Variables& variables) {
  const auto launched = read(variables);
  EXPECT_TRUE(launched && *launched) << (launched ? "started by hand" : launched.error().message);
  return launched && *launched ? **launched : LaunchedRank{.rank = -1};
}

const Variables kOpenMpi{{"OMPI_COMM_WORLD_RANK", "3"},
                         {"OMPI_COMM_WORLD_SIZE", "8"},
                         {"OMPI_COMM_WORLD_LOCAL_SIZE", "4"},
                         {"OMPI_MCA_ess_base_jobid", "2886729729"},
                         {"OMPI_MCA_orte_hnp_uri", "2886729728.0;tcp://10.0.0.7,10.1.0.7:45421"},
                         {"SLURM_PROCID", "0"},
                         {"SLURM_NTASKS", "2"}};

TEST(LaunchedRank, NothingIsStartedByHand) {
  const auto launched = read({{"PATH", "/bin"}, {"SLURM_NTASKS", "4"}});
  ASSERT_TRUE(launched);
  EXPECT_FALSE(*launched);
}

TEST(LaunchedRank, OfOpenMpiMeetsAtMpirunsNodeAlsoInsideASlurmJob) {
  const LaunchedRank launched = rank_of(kOpenMpi);
  EXPECT_EQ(launched.rank, 3);
  EXPECT_EQ(launched.size, 8);
  EXPECT_EQ(launched.local_size, 4);
  EXPECT_EQ(launched.address, "10.0.0.7");
}

TEST(LaunchedRank, OnOneNodeMeetsAtLoopback) {
  Variables variables = kOpenMpi;
  variables["OMPI_COMM_WORLD_LOCAL_SIZE"] = "8";
  EXPECT_EQ(rank_of(variables).address, "127.0.0.1");
  const LaunchedRank hydra = rank_of({{"PMI_RANK", "1"}, {"PMI_SIZE", "2"}, {"MPI_LOCALNRANKS", "2"}});
  EXPECT_EQ(hydra.address, "127.0.0.1");
  EXPECT_GE(hydra.port, 20'000);
  EXPECT_EQ(rank_of({{"SLURM_PROCID", "1"}, {"SLURM_NTASKS", "2"}, {"SLURM_NNODES", "1"}}).address, "127.0.0.1");
}

TEST(LaunchedRank, OfPmiOnSeveralNodesKnowsNoAddress) {
  const LaunchedRank launched = rank_of({{"PMI_RANK", "1"}, {"PMI_SIZE", "4"}, {"MPI_LOCALNRANKS", "2"}});
  EXPECT_EQ(launched.size, 4);
  EXPECT_EQ(launched.address, "");
  EXPECT_EQ(launched.port, 0);
}

TEST(LaunchedRank, OfSlurmMeetsAtTheFirstNode) {
  const LaunchedRank launched = rank_of({{"SLURM_PROCID", "5"},
                                         {"SLURM_NTASKS", "8"},
                                         {"SLURM_NNODES", "2"},
                                         {"SLURM_JOB_ID", "4711"},
                                         {"SLURM_STEP_NODELIST", "cpu[03-04]"}});
  EXPECT_EQ(launched.rank, 5);
  EXPECT_EQ(launched.address, "cpu03");
}

TEST(LaunchedRank, EveryJobHasAPortThatAllItsRanksKnow) {
  const auto port = [](const char* rank, const char* job) {
    return rank_of({{"SLURM_PROCID", rank}, {"SLURM_NTASKS", "8"}, {"SLURM_JOB_ID", job}}).port;
  };
  EXPECT_EQ(port("0", "4711"), port("7", "4711"));
  EXPECT_NE(port("0", "4711"), port("0", "4712"));
  EXPECT_GE(port("0", "4711"), 20'000);
  EXPECT_LT(port("0", "4711"), 32'000);
}

TEST(LaunchedRank, TheErrorNamesTheVariable) {
  EXPECT_THAT(read({{"PMI_RANK", "1"}}).error().message, HasSubstr("PMI_SIZE is not set"));
  EXPECT_EQ(read({{"PMI_RANK", "2"}, {"PMI_SIZE", "2"}}).error().message, "PMI_RANK=2 is no number from 0 to 1");
  EXPECT_THAT(read({{"PMI_RANK", "0"}, {"PMI_SIZE", "two"}}).error().message, HasSubstr("PMI_SIZE=two"));
}

TEST(LaunchedRank, TheFirstNodeOfSlurmsListIsFound) {
  EXPECT_EQ(first_slurm_node("node1"), "node1");
  EXPECT_EQ(first_slurm_node("node1,node2"), "node1");
  EXPECT_EQ(first_slurm_node("node[03-06,9],other1"), "node03");
  EXPECT_EQ(first_slurm_node("node[7,9]"), "node7");
  EXPECT_EQ(first_slurm_node("node[12]"), "node12");
}

}  // namespace

}  // namespace cachalot
