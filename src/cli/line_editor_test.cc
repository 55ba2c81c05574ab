#include "cli/line_editor.h"

#include <gmock/gmock.h>
#include <poll.h>
#include <pty.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>

#include "base/folder_test_util.h"

namespace cachalot {
namespace {

// A program at a terminal that says "[LINE]" of each line it reads, until the end of the input.
class Terminal {
 public:
  explicit Terminal(const std::string& history_file) {
    pid_ = forkpty(&master_, nullptr, nullptr, nullptr);
    if (pid_ != 0) return;
    setenv("TERM", "vt100", 1);
    signal(SIGINT, SIG_DFL);  // ignored where a shell has put the tests into the background
    LineEditor editor(history_file);
    while (const std::optional<std::string> line = editor.read_line("> ")) {
      fmt::print("[{}]\n", *line);
      std::fflush(stdout);
    }
    fmt::print("over\n");
    std::fflush(stdout);
    _exit(0);
  }
  ~Terminal() {
    close(master_);
    if (pid_ > 0) kill(pid_, SIGKILL);
    if (pid_ > 0) waitpid(pid_, nullptr, 0);
  }

  // Once the editor has the terminal, which is a moment after its prompt: keys that come before are the terminal's own
  // to edit.
  void type(const std::string& keys) {
    termios mode{};
    for (int try_idx = 0; tcgetattr(master_, &mode) == 0 && (mode.c_lflag & ICANON) != 0 && try_idx < 10'000; try_idx++)
      usleep(1'000);
    ASSERT_EQ(write(master_, keys.data(), keys.size()), std::ssize(keys));
  }
  // What is on the screen once `text` is, or after 10 s.
  std::string wait_for(const std::string& text) {
    for (pollfd ready{.fd = master_, .events = POLLIN, .revents = 0}; !screen_.contains(text);) {
      char bytes[512];
      if (poll(&ready, 1, 10'000) != 1) break;
      const ssize_t num_bytes = read(master_, bytes, sizeof(bytes));
      if (num_bytes <= 0) break;
      screen_.append(bytes, static_cast<size_t>(num_bytes));
    }
    return std::exchange(screen_, {});
  }
  int wait_for_end() {
    int status = 0;
    waitpid(std::exchange(pid_, -1), &status, 0);
    return status;
  }

 private:
  pid_t pid_ = -1;
  int master_ = -1;
  std::string screen_;
};

constexpr const char* kUp = "\x1b[A";

class LineEditorTest : public testing::Test {
 protected:
  const TestFolder folder_;
  const std::string file_ = folder_.path("chat_history");
};

TEST_F(LineEditorTest, ArrowUpBringsBackTheLastLineAndLinesCanBeChanged) {
  Terminal terminal(file_);
  terminal.wait_for("> ");
  terminal.type("hello there\n");
  EXPECT_THAT(terminal.wait_for("[hello there]\r\n> "), testing::HasSubstr("[hello there]"));
  terminal.type(std::string(kUp) + "!\n");
  EXPECT_THAT(terminal.wait_for("[hello there!]\r\n> "), testing::HasSubstr("[hello there!]"));
  terminal.type("ab\x1b[Dx\n");  // arrow left
  EXPECT_THAT(terminal.wait_for("[axb]\r\n> "), testing::HasSubstr("[axb]"));
  terminal.type("gr\xc3\xb6\xc3\x9f\x7f\x7fo\n");  // two letters of two bytes taken back
  EXPECT_THAT(terminal.wait_for("[gro]\r\n> "), testing::HasSubstr("[gro]"));
  terminal.type("\x04");  // Ctrl-D
  EXPECT_THAT(terminal.wait_for("over"), testing::HasSubstr("over"));
}

TEST_F(LineEditorTest, HistoryIsKeptForItsOwnerAlone) {
  {
    Terminal terminal(file_);
    terminal.wait_for("> ");
    terminal.type("a secret\n");
    terminal.wait_for("[a secret]");
  }
  struct stat info{};
  ASSERT_EQ(stat(file_.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600U);
  Terminal terminal(file_);
  terminal.wait_for("> ");
  terminal.type(std::string(kUp) + "\n");
  EXPECT_THAT(terminal.wait_for("[a secret]"), testing::HasSubstr("[a secret]"));
}

TEST_F(LineEditorTest, InterruptAtThePromptEndsTheProgram) {
  Terminal terminal(file_);
  terminal.wait_for("> ");
  terminal.type("\x03");
  const int status = terminal.wait_for_end();
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGINT) << status;
}

}  // namespace
}  // namespace cachalot
