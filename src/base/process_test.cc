#include "base/process.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/time.h>
#include <unistd.h>

#include <thread>

#include "base/folder_test_util.h"
#include "base/process_test_util.h"
#include "base/text.h"

namespace cachalot {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using std::chrono::steady_clock;

class ProcessTest : public testing::Test {
 protected:
  Process start(ProcessOptions options) {
    options.log = scratch_.path("log");
    auto process = Process::start(options);
    EXPECT_TRUE(process.has_value()) << process.error().message;
    return std::move(*process);
  }
  Process start(const std::string& script, bool input = false) {
    return start({.words = {"sh", "-c", script}, .folder = scratch_.path(), .input = input});
  }
  // How it ends; what it says goes to the log.
  int run(ProcessOptions options) {
    unlink(scratch_.path("log").c_str());
    return start(std::move(options)).wait_for(seconds(20)).value_or(-1);
  }
  std::string log() const { return read_file(scratch_.path("log")).value_or(""); }

  TestFolder scratch_;
};

TEST_F(ProcessTest, WorksInItsFolderByTheNameItIsGivenAndAddsItsOutputToItsLog) {
  Process first = start({.words = {"other", "-c", "echo $0; pwd; echo wrong >&2; exit 3"},
                         .program = "/bin/sh",
                         .folder = scratch_.path()});
  EXPECT_EQ(first.wait(), 3);
  EXPECT_EQ(start("echo more").wait(), 0);
  EXPECT_EQ(log(), "other\n" + scratch_.path() + "\nwrong\nmore\n");
}

TEST_F(ProcessTest, SaysWhatCannotBeRunAndWhy) {
  EXPECT_EQ(run({.words = {"true"}}), 0) << "looked for as a shell does";
  EXPECT_EQ(run({.words = {"cachalot"}, .program = "/nowhere/cachalot"}), 127);
  EXPECT_EQ(log(), "cachalot: /nowhere/cachalot: No such file or directory\n");
  EXPECT_EQ(run({.words = {"true"}, .folder = "/nowhere"}), 126);
  EXPECT_EQ(log(), "cachalot: /nowhere: No such file or directory\n");
}

TEST_F(ProcessTest, ALogThatCannotBeWrittenIsNamed) {
  const auto process = Process::start({.words = {"true"}, .log = scratch_.path()});
  ASSERT_FALSE(process);
  EXPECT_EQ(process.error().message, scratch_.path() + " cannot be written: Is a directory");
}

TEST_F(ProcessTest, HasVariablesInPlaceOfThoseOfThisProcess) {
  setenv("CACHALOT_ONE", "1", 1);
  setenv("CACHALOT_TWO", "2", 1);
  EXPECT_EQ(run({.words = {"sh", "-c", "echo $CACHALOT_ONE $CACHALOT_TWO $CACHALOT_THREE"},
                 .environment = {"CACHALOT_TWO=two", "CACHALOT_THREE=three"}}),
            0);
  EXPECT_EQ(log(), "1 two three\n");
}

TEST_F(ProcessTest, ReadsWhatItIsWrittenUntilItsInputIsClosed) {
  Process process = start("cat", true);
  process.write("hello\n");
  EXPECT_EQ(process.status(), std::nullopt);
  process.close_input();
  EXPECT_EQ(process.wait(), 0);
  EXPECT_EQ(log(), "hello\n");
  EXPECT_EQ(start("cat").wait(), 0) << "without input it reads nothing";
}

TEST_F(ProcessTest, KeepsOwnSignalsFromItAndIgnoresNoneForIt) {
  sigset_t blocked, before;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGTERM);
  sigprocmask(SIG_BLOCK, &blocked, &before);
  const auto ignored = signal(SIGPIPE, SIG_IGN), interrupt = signal(SIGINT, SIG_IGN);
  EXPECT_EQ(run({.words = {"sh", "-c", "kill -TERM $$"}}), 128 + SIGTERM);
  EXPECT_EQ(run({.words = {"sh", "-c", "kill -PIPE $$"}}), 128 + SIGPIPE);
  EXPECT_EQ(run({.words = {"sh", "-c", "kill -INT $$"}}), 128 + SIGINT);
  signal(SIGPIPE, ignored);
  signal(SIGINT, interrupt);
  sigprocmask(SIG_SETMASK, &before, nullptr);
}

// Between its fork and its program it is still a copy of this process, whose handlers are not for it.
TEST_F(ProcessTest, ASignalRightBehindTheStartIsTheProgramsOwn) {
  const auto before = signal(SIGHUP, [](int) {});
  for (int round = 0; round < 100; round++) {
    Process process = start("sleep 60");
    process.signal(SIGHUP);
    ASSERT_EQ(process.wait_for(seconds(20)), 128 + SIGHUP) << round;
  }
  signal(SIGHUP, before);
}

TEST_F(ProcessTest, TellsHowItEndedAlsoWhenItIsAskedAgain) {
  Process process = start("kill -TERM $$");
  EXPECT_EQ(process.wait(), 128 + SIGTERM);
  EXPECT_EQ(process.status(), 128 + SIGTERM);
  EXPECT_EQ(Process::adopt(process.pid()).wait(), 128 + SIGKILL) << "reaped by somebody else";
}

TEST_F(ProcessTest, AWaitEndsInItsTimeAndNoSignalShortensIt) {
  Process process = start("sleep 60");
  EXPECT_EQ(process.wait_for(milliseconds(20)), std::nullopt);
  const auto before = signal(SIGALRM, [](int) {});
  const itimerval often{.it_interval = {.tv_usec = 5'000}, .it_value = {.tv_usec = 5'000}}, never{};
  setitimer(ITIMER_REAL, &often, nullptr);
  const auto begin = steady_clock::now();
  EXPECT_EQ(process.wait_for(milliseconds(200)), std::nullopt);
  EXPECT_GE(steady_clock::now() - begin, milliseconds(200));
  Process other = start("sleep 0.2; exit 7");
  EXPECT_EQ(other.wait(), 7);
  setitimer(ITIMER_REAL, &never, nullptr);
  signal(SIGALRM, before);
}

TEST_F(ProcessTest, DiesWithItsOwnerAndWithItsGroup) {
  std::optional<ProcessHandle> process, grandchild;
  {
    Process child = start("sleep 1000 & echo $!; wait");
    process.emplace(child.pid());
    while (log().empty()) poll(nullptr, 0, 5);
    grandchild.emplace(parse_number<pid_t>(log().substr(0, log().find('\n'))).value());
    EXPECT_FALSE(grandchild->ends_within(milliseconds(0)));
  }
  EXPECT_TRUE(process->ends_within(milliseconds(0)));
  EXPECT_TRUE(grandchild->ends_within(seconds(5)));
}

TEST_F(ProcessTest, ReleasedItGoesOn) {
  std::optional<ProcessHandle> process;
  {
    Process child = start("exec sleep 1000");
    process.emplace(child.pid());
    child.release();
  }
  EXPECT_FALSE(process->ends_within(milliseconds(20)));
  process->signal(SIGKILL);
  EXPECT_EQ(Process::adopt(process->pid()).wait(), 128 + SIGKILL);
}

TEST_F(ProcessTest, HasTheDescriptorThatItIsToKeepAndNoOther) {
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  const FileDescriptor kept(ends[0]), other(ends[1]);
  EXPECT_EQ(run({.words = {"sh", "-c", "ls /proc/$$/fd"}, .kept = {kept.get()}}), 0);
  EXPECT_NE(log().find("\n" + std::to_string(kept.get()) + "\n"), std::string::npos) << log();
  EXPECT_EQ(log().find("\n" + std::to_string(other.get()) + "\n"), std::string::npos) << log();
}

TEST(RunProgram, GivesWhatItPrintedAndEndsOneThatTakesTooLong) {
  const auto result = run_program({.words = {"sh", "-c", "echo yes; echo no >&2; exit 4"}}, seconds(20));
  ASSERT_TRUE(result) << result.error().message;
  EXPECT_EQ(result->status, 4);
  EXPECT_EQ(result->output, "yes\n");
  const auto late = run_program({.words = {"sleep", "1000"}}, milliseconds(50));
  ASSERT_FALSE(late);
  EXPECT_EQ(late.error().message, "sleep has not ended within 50 ms");
}

TEST(KillChildren, EndsAllOfThemAlsoThoseOfOtherThreadsAndInGroupsOfTheirOwn) {
  Process inside = fork_process([] {
    Process one = Process::start({.words = {"sh", "-c", "sleep 1000"}}).value();
    Process other = fork_process([] { return pause(); });
    std::optional<Process> third;
    std::jthread([&] {
      third.emplace(Process::start({.words = {"sleep", "1000"}, .parent_death = 0}).value());
    }).join();
    kill_children(seconds(10));
    for (Process* process : {&one, &other, &*third}) {
      if (process->status() != 128 + SIGKILL) return 1;
    }
    return 0;
  });
  EXPECT_EQ(inside.wait(), 0);
}

TEST(DescribeEnd, NamesTheSignal) {
  EXPECT_EQ(describe_end(1), "ended with status 1");
  EXPECT_EQ(describe_end(128 + SIGTERM), "was ended by signal 15 (Terminated)");
  EXPECT_EQ(describe_end(255), "ended with status 255") << "as ssh does when it fails";
}

}  // namespace
}  // namespace cachalot
