#include "serve/rank_processes.h"

#include <gtest/gtest.h>
#include <sys/wait.h>

#include <csignal>
#include <future>

namespace cachalot {
namespace {

std::vector<std::string> shell(const std::string& script) {
  return {"sh", "-c", script};
}

TEST(RankProcesses, TellsHowAChildEnded) {
  const auto processes = RankProcesses::start({shell("sleep 60"), shell("exit 7")}, "/bin/sh").value();
  std::promise<std::pair<int, std::string>> ended;
  processes->watch([&](int which, const std::string& how) { ended.set_value({which, how}); });
  EXPECT_EQ(ended.get_future().get(), (std::pair<int, std::string>{1, "ended with status 7"}));
  kill(processes->pid(0), SIGKILL);
}

TEST(RankProcesses, ChildrenDieWithTheProcessThatStartedThem) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  const pid_t middle = fork();
  if (middle == 0) {
    const auto processes = RankProcesses::start({shell("exec sleep 60")}, "/bin/sh").value();
    const pid_t pid = processes->pid(0);
    if (write(ends[1], &pid, sizeof pid) != sizeof pid) _exit(1);
    raise(SIGKILL);
  }
  pid_t grandchild = 0;
  ASSERT_EQ(read(ends[0], &grandchild, sizeof grandchild), static_cast<ssize_t>(sizeof grandchild));
  int status = 0;
  waitpid(middle, &status, 0);
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
  bool gone = false;
  for (int attempt = 0; attempt < 500 && !gone; attempt++) {
    // A zombie that nobody reaps, in a container without an init, has ended too.
    gone = kill(grandchild, 0) != 0 || access(("/proc/" + std::to_string(grandchild) + "/exe").c_str(), F_OK) != 0;
    if (!gone) usleep(10'000);
  }
  EXPECT_TRUE(gone);
  close(ends[0]);
  close(ends[1]);
}

}  // namespace
}  // namespace cachalot
