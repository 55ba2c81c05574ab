#include "serve/rank_processes.h"

#include <gtest/gtest.h>

#include <future>

#include "base/process_test_util.h"

namespace cachalot {
namespace {

std::vector<std::string> shell(const std::string& script) {
  return {"sh", "-c", script};
}

TEST(RankProcesses, TellsHowAChildEnded) {
  const auto processes = RankProcesses::start({shell("exec sleep 60"), shell("exit 7")}, "/bin/sh").value();
  std::promise<std::pair<int, std::string>> ended;
  processes->watch([&](int which, const EndReport& end) { ended.set_value({which, end.text()}); });
  EXPECT_EQ(ended.get_future().get(), (std::pair<int, std::string>{1, "ended with status 7"}));
  kill(processes->pid(0), SIGKILL);
}

// As one in which a CHECK fails: it says so where main() does, and aborts.
TEST(RankProcesses, TellsWhatAChildSaidOfItsEnd) {
  const auto processes =
      RankProcesses::start(
          {shell("eval \"echo '{\\\"version\\\": 1, \\\"status\\\": 1, \\\"code\\\": \\\"internal\\\", "
                 "\\\"message\\\": \\\"src/a.cc:7: check failed: x > 0\\\"}' >&$CACHALOT_END_FD\"; "
                 "kill -ABRT $$")},
          "/bin/bash")
          .value();
  std::promise<EndReport> ended;
  processes->watch([&](int, const EndReport& end) { ended.set_value(end); });
  const EndReport end = ended.get_future().get();
  EXPECT_EQ(end.text(), "was ended by signal 6 (Aborted): src/a.cc:7: check failed: x > 0");
  ASSERT_TRUE(end.error);
  EXPECT_EQ(end.error->code, ErrorCode::kInternal);
  EXPECT_EQ(processes->how_it_ended(0).value().text(), end.text());
}

TEST(RankProcesses, ChildrenDieWithTheProcessThatStartedThem) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  Process middle = fork_process([&] {
    const auto processes = RankProcesses::start({shell("exec sleep 60")}, "/bin/sh").value();
    const pid_t pid = processes->pid(0);
    if (write(ends[1], &pid, sizeof pid) != sizeof pid) return 1;
    return raise(SIGKILL);
  });
  pid_t grandchild = 0;
  ASSERT_EQ(read(ends[0], &grandchild, sizeof grandchild), static_cast<ssize_t>(sizeof grandchild));
  EXPECT_EQ(middle.wait(), 128 + SIGKILL);
  EXPECT_TRUE(ProcessHandle(grandchild).ends_within(std::chrono::seconds(5)));
  close(ends[0]);
  close(ends[1]);
}

}  // namespace
}  // namespace cachalot
