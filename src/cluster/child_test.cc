#include "cluster/child.h"

#include <gtest/gtest.h>
#include <poll.h>

#include <csignal>

#include "base/file.h"
#include "base/folder_test_util.h"
#include "cluster/log_tail.h"

namespace cachalot {
namespace {

int wait_for(Child& child) {
  pollfd ended{.fd = child.pidfd(), .events = POLLIN, .revents = 0};
  EXPECT_EQ(poll(&ended, 1, 10'000), 1) << "the child still runs";
  return child.status().value_or(-1);
}

class ChildTest : public testing::Test {
 protected:
  Child start(const std::string& script, bool input = false) {
    auto child = Child::start(
        {.words = {"sh", "-c", script}, .folder = scratch_.path(), .log = scratch_.path("log"), .input = input});
    EXPECT_TRUE(child.has_value()) << child.error().message;
    return std::move(*child);
  }
  std::string log() const { return read_file(scratch_.path("log")).value_or(""); }

  TestFolder scratch_;
};

TEST_F(ChildTest, WorksInItsFolderAndAddsItsOutputToItsLog) {
  Child first = start("pwd; echo wrong >&2; exit 3");
  EXPECT_EQ(wait_for(first), 3);
  Child second = start("echo more");
  EXPECT_EQ(wait_for(second), 0);
  EXPECT_EQ(log(), scratch_.path() + "\nwrong\nmore\n");
}

TEST_F(ChildTest, ReadsWhatItIsWrittenUntilItsInputIsClosed) {
  Child child = start("cat", true);
  child.write("hello\n");
  EXPECT_EQ(child.status(), std::nullopt);
  child.close_input();
  EXPECT_EQ(wait_for(child), 0);
  EXPECT_EQ(log(), "hello\n");
}

TEST_F(ChildTest, WithoutInputReadsNothing) {
  Child child = start("cat");
  EXPECT_EQ(wait_for(child), 0);
}

TEST_F(ChildTest, TellsHowItEnded) {
  Child child = start("kill -TERM $$");
  EXPECT_EQ(wait_for(child), 128 + SIGTERM);
  EXPECT_EQ(child.status(), 128 + SIGTERM) << "also when it is asked again";
}

TEST_F(ChildTest, DiesWithItsOwner) {
  pid_t pid = 0;
  {
    const Child child = start("sleep 1000");
    pid = child.pid();
  }
  EXPECT_EQ(kill(pid, 0), -1);
}

TEST_F(ChildTest, ATailOfItsLogBeginsWhereTheLogEnded) {
  ASSERT_TRUE(write_file(scratch_.path("log"), "old\n"));
  LogTail tail(scratch_.path("log"));
  EXPECT_TRUE(tail.new_lines().empty());
  Child child = start("printf 'one\\ntwo\\nthr'; read unused; echo ee", true);
  std::vector<std::string> lines;
  for (int attempt = 0; attempt < 1000 && lines.size() < 2; attempt++) {
    poll(nullptr, 0, 10);
    for (std::string& line : tail.new_lines()) lines.push_back(std::move(line));
  }
  EXPECT_EQ(lines, (std::vector<std::string>{"one", "two"})) << "the third is not whole yet";
  child.write("\n");
  EXPECT_EQ(wait_for(child), 0);
  EXPECT_EQ(tail.new_lines(), std::vector<std::string>{"three"});
}

}  // namespace
}  // namespace cachalot
