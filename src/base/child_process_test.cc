#include "base/child_process.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/wait.h>

#include <csignal>

#include "base/file.h"
#include "base/folder_test_util.h"

namespace cachalot {
namespace {

class StartProgram : public testing::Test {
 protected:
  // How it ends; what it says goes to said_.
  int run(ProgramStart start) {
    const FileDescriptor output(open(scratch_.path("said").c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
    start.output = output.get();
    const Result<ChildProcess> child = start_program(start);
    EXPECT_TRUE(child) << child.error().message;
    pollfd ended{.fd = child->pidfd.get(), .events = POLLIN, .revents = 0};
    EXPECT_EQ(poll(&ended, 1, 10'000), 1) << "the child still runs";
    siginfo_t how{};
    EXPECT_EQ(waitid(P_PID, static_cast<id_t>(child->pid), &how, WEXITED), 0);
    said_ = read_file(scratch_.path("said")).value();
    return end_status(how);
  }

  TestFolder scratch_;
  std::string said_;
};

TEST_F(StartProgram, RunsItInItsFolderByTheNameItIsGiven) {
  EXPECT_EQ(run({.program = "/bin/sh",
                 .words = {"other", "-c", "echo $0; pwd; echo wrong >&2; exit 3"},
                 .folder = scratch_.path()}),
            3);
  EXPECT_EQ(said_, "other\n" + scratch_.path() + "\nwrong\n");
}

TEST_F(StartProgram, LooksForItAsAShellDoes) {
  EXPECT_EQ(run({.words = {"true"}}), 0);
}

TEST_F(StartProgram, SaysWhatCannotBeRunAndWhy) {
  EXPECT_EQ(run({.program = "/nowhere/cachalot", .words = {"cachalot"}}), 127);
  EXPECT_EQ(said_, "cachalot: /nowhere/cachalot: No such file or directory\n");
  EXPECT_EQ(run({.words = {"true"}, .folder = "/nowhere"}), 126);
  EXPECT_EQ(said_, "cachalot: /nowhere: No such file or directory\n");
}

TEST_F(StartProgram, GivesItTheInputThatItIsTo) {
  ASSERT_TRUE(write_file(scratch_.path("input"), "hello\n"));
  const FileDescriptor input(open(scratch_.path("input").c_str(), O_RDONLY | O_CLOEXEC));
  EXPECT_EQ(run({.words = {"cat"}, .input = input.get()}), 0);
  EXPECT_EQ(said_, "hello\n");
}

TEST_F(StartProgram, KeepsOwnSignalsFromItAndIgnoresNoneForIt) {
  sigset_t blocked, before;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGTERM);
  sigprocmask(SIG_BLOCK, &blocked, &before);
  const auto ignored = signal(SIGPIPE, SIG_IGN);
  EXPECT_EQ(run({.words = {"sh", "-c", "kill -TERM $$"}}), 128 + SIGTERM);
  EXPECT_EQ(run({.words = {"sh", "-c", "kill -PIPE $$"}}), 128 + SIGPIPE);
  signal(SIGPIPE, ignored);
  sigprocmask(SIG_SETMASK, &before, nullptr);
}

TEST_F(StartProgram, PutsItInAProcessGroupOfItsOwn) {
  EXPECT_EQ(run({.words = {"sh", "-c", "test $(cut -d ' ' -f 5 /proc/$$/stat) = $$"}}), 0);
}

TEST(DescribeEnd, NamesTheSignal) {
  EXPECT_EQ(describe_end(1), "ended with status 1");
  EXPECT_EQ(describe_end(128 + SIGTERM), "was ended by signal 15 (Terminated)");
  EXPECT_EQ(describe_end(255), "ended with status 255") << "as ssh does when it fails";
}

}  // namespace
}  // namespace cachalot
