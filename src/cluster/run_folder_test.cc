#include "cluster/run_folder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "base/folder_test_util.h"

namespace cachalot {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class RunFolderTest : public testing::Test {
 protected:
  TestFolder scratch_;
  RunFolder folder_ = *RunFolder::open(scratch_.path("run"));
};

TEST_F(RunFolderTest, OnlyOneHoldsAName) {
  const auto lock = RunLock::take(folder_, "r1");
  ASSERT_TRUE(lock.has_value()) << lock.error().message;
  EXPECT_EQ(folder_.owner("r1"), getpid());
  const auto second = RunLock::take(folder_, "r1");
  ASSERT_FALSE(second.has_value());
  EXPECT_THAT(second.error().message, HasSubstr("cluster r1 is already up (pid " + std::to_string(getpid()) + ")"));
  const auto other = RunLock::take(folder_, "nano");
  ASSERT_TRUE(other.has_value());
  EXPECT_THAT(folder_.names(), ElementsAre("nano", "r1"));
}

TEST_F(RunFolderTest, NothingIsLeftOfALockThatHasGone) {
  {
    const auto lock = RunLock::take(folder_, "r1");
    ASSERT_TRUE(lock.has_value());
    std::ofstream(folder_.state_path("r1")) << "{}";
  }
  EXPECT_EQ(folder_.owner("r1"), std::nullopt);
  EXPECT_TRUE(std::filesystem::is_empty(scratch_.path("run")));
}

TEST_F(RunFolderTest, ALockOfAProcessThatWasKilledIsFree) {
  std::ofstream(scratch_.path("run/r1.lock")) << "1\n";  // as it leaves one
  EXPECT_EQ(folder_.owner("r1"), std::nullopt);
  EXPECT_TRUE(folder_.names().empty());
  EXPECT_TRUE(RunLock::take(folder_, "r1").has_value());
}

TEST_F(RunFolderTest, WhatCannotBeAFolderOrALockIsNamedWithTheWayOut) {
  std::ofstream(scratch_.path("file")) << "x";
  const auto below_a_file = RunFolder::open(scratch_.path("file/run"));
  ASSERT_FALSE(below_a_file.has_value());
  EXPECT_THAT(below_a_file.error().message, HasSubstr("the run folder " + scratch_.path("file/run") +
                                                      " cannot be made: Not a directory; --run-folder"));
  std::filesystem::create_directory(scratch_.path("run/r1.lock"));
  const auto lock = RunLock::take(folder_, "r1");
  ASSERT_FALSE(lock.has_value());
  EXPECT_THAT(lock.error().message, HasSubstr("run/r1.lock cannot be written: Is a directory; --run-folder"));
  EXPECT_EQ(folder_.owner("r1"), std::nullopt);
}

TEST_F(RunFolderTest, HintsNameTheFolderThatTheyNeed) {
  const RunFolder folder = *RunFolder::open(scratch_.path("run"), " --run-folder x");
  const auto lock = RunLock::take(folder, "r1");
  EXPECT_THAT(RunLock::take(folder, "r1").error().message,
              HasSubstr("`cachalot status r1 --run-folder x` shows it, `cachalot down r1 --run-folder x` stops it"));
}

TEST_F(RunFolderTest, AFileInItsPlaceIsRefused) {
  std::ofstream(scratch_.path("file")) << "x";
  const auto folder = RunFolder::open(scratch_.path("file"));
  ASSERT_FALSE(folder.has_value());
  EXPECT_THAT(folder.error().message, HasSubstr("--run-folder"));
}

}  // namespace
}  // namespace cachalot
