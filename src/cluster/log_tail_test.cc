#include "cluster/log_tail.h"

#include <gtest/gtest.h>
#include <poll.h>

#include "base/file.h"
#include "base/folder_test_util.h"
#include "base/process.h"

namespace cachalot {
namespace {

TEST(LogTail, BeginsWhereTheLogEnded) {
  const TestFolder scratch;
  ASSERT_TRUE(write_file(scratch.path("log"), "old\n"));
  LogTail tail(scratch.path("log"));
  EXPECT_TRUE(tail.new_lines().empty());
  Process child = Process::start({.words = {"sh", "-c", "printf 'one\\ntwo\\nthr'; read unused; echo ee"},
                                  .log = scratch.path("log"),
                                  .input = true})
                      .value();
  std::vector<std::string> lines;
  for (int attempt = 0; attempt < 1000 && lines.size() < 2; attempt++) {
    poll(nullptr, 0, 10);
    for (std::string& line : tail.new_lines()) lines.push_back(std::move(line));
  }
  EXPECT_EQ(lines, (std::vector<std::string>{"one", "two"})) << "the third is not whole yet";
  child.write("\n");
  EXPECT_EQ(child.wait(), 0);
  EXPECT_EQ(tail.new_lines(), std::vector<std::string>{"three"});
}

}  // namespace
}  // namespace cachalot
