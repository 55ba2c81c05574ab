#include "base/stop_signals.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <csignal>
#include <thread>

#include "base/file.h"
#include "base/process_test_util.h"

namespace cachalot {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using std::chrono::steady_clock;

// A process that takes its signals, and says "r" when it does; whatever its body returns, it then waits for ever.
class Stubborn {
 public:
  template <class Body>
  explicit Stubborn(Body body) {
    CHECK(pipe2(words_.data(), O_CLOEXEC) == 0);
    process_.emplace(fork_process([&]() -> int {
      take_stop_signals();
      body([&](char word) { CHECK(write(words_[1], &word, 1) == 1); });
      for (;;) pause();
    }));
    close(words_[1]);
  }
  Stubborn() : Stubborn([](auto say) { say('r'); }) {}
  ~Stubborn() { close(words_[0]); }

  char next_word() {
    char word = 0;
    return readable_within(words_[0], seconds(20)) && read(words_[0], &word, 1) == 1 ? word : '-';
  }
  void signal(int number) { process_->signal(number); }
  std::optional<int> ends_within(milliseconds time) { return process_->wait_for(time); }
  std::optional<int> ends_at_once() {
    OwnTime time;
    const auto begin = steady_clock::now();
    const std::optional<int> status = process_->wait_for(seconds(60));
    EXPECT_LT(time.since(begin), seconds(2));
    return status;
  }

 private:
  std::array<int, 2> words_{};
  std::optional<Process> process_;
};

TEST(StopSignals, EndAProcessThatDoesNotReact) {
  for (const int number : {SIGTERM, SIGINT, SIGHUP}) {
    Stubborn process;
    ASSERT_EQ(process.next_word(), 'r');
    process.signal(number);
    EXPECT_EQ(process.ends_at_once(), 128 + number) << signal_name(number);
  }
}

TEST(StopSignals, EndItsChildrenToo) {
  std::array<int, 2> pids{};
  ASSERT_EQ(pipe2(pids.data(), O_CLOEXEC), 0);
  Stubborn process([&](auto say) {
    Process child = Process::start({.words = {"sleep", "1000"}, .parent_death = 0}).value();
    const pid_t pid = child.pid();
    CHECK(write(pids[1], &pid, sizeof pid) == sizeof pid);
    child.release();
    say('r');
  });
  ASSERT_EQ(process.next_word(), 'r');
  pid_t child = 0;
  ASSERT_EQ(read(pids[0], &child, sizeof child), static_cast<ssize_t>(sizeof child));
  const ProcessHandle handle(child);
  process.signal(SIGTERM);
  EXPECT_EQ(process.ends_at_once(), 128 + SIGTERM);
  EXPECT_TRUE(handle.ends_within(milliseconds(500)));
}

TEST(StopSignals, CallbacksHaveTheirSay) {
  Stubborn process([](auto say) {
    static const std::stop_callback callback(stop_token_of_signals(), [say] {
      std::this_thread::sleep_for(milliseconds(100));
      say('c');
    });
    say('r');
  });
  ASSERT_EQ(process.next_word(), 'r');
  process.signal(SIGINT);
  EXPECT_EQ(process.next_word(), 'c');
  EXPECT_EQ(process.ends_at_once(), 128 + SIGINT);
}

TEST(StopSignals, ACallbackThatHangsIsNotWaitedFor) {
  Stubborn process([](auto say) {
    static const std::stop_callback callback(stop_token_of_signals(), [] { std::this_thread::sleep_for(seconds(60)); });
    say('r');
  });
  ASSERT_EQ(process.next_word(), 'r');
  process.signal(SIGTERM);
  EXPECT_EQ(process.ends_at_once(), 128 + SIGTERM);
}

TEST(StopSignals, AnOwnerIsToldOfEachAndASecondOneEndsWhatItDoesNot) {
  Stubborn process([](auto say) {
    static StopSignals signals(std::nullopt);
    say('r');
    say(signals.wait() == SIGHUP ? '1' : '?');
    say(signals.wait() == SIGTERM ? '2' : '?');
  });
  ASSERT_EQ(process.next_word(), 'r');
  process.signal(SIGHUP);
  EXPECT_EQ(process.next_word(), '1');
  EXPECT_EQ(process.ends_within(milliseconds(300)), std::nullopt);
  process.signal(SIGTERM);
  EXPECT_EQ(process.next_word(), '2');
  EXPECT_EQ(process.ends_at_once(), 128 + SIGHUP) << "the first is the reason";
}

TEST(StopSignals, AnOwnersPatienceIsTheLongestThatItLasts) {
  Stubborn process([](auto say) {
    static StopSignals signals(milliseconds(300));
    say('r');
  });
  ASSERT_EQ(process.next_word(), 'r');
  EXPECT_EQ(process.ends_within(milliseconds(400)), std::nullopt) << "it counts from the signal on";
  const auto begin = steady_clock::now();
  process.signal(SIGTERM);
  EXPECT_EQ(process.ends_at_once(), 128 + SIGTERM);
  EXPECT_GE(steady_clock::now() - begin, milliseconds(300));
}

TEST(StopSignals, AnOwnerThatComesAfterTheSignalFindsIt) {
  Stubborn process([](auto say) {
    static const std::stop_callback callback(stop_token_of_signals(),
                                             [] { std::this_thread::sleep_for(milliseconds(300)); });
    say('r');
    while (received_stop_signal() == 0) std::this_thread::sleep_for(milliseconds(1));
    StopSignals signals(milliseconds(500));
    say(signals.wait_for(seconds(5)) == SIGTERM ? '1' : '?');
    _exit(7);
  });
  ASSERT_EQ(process.next_word(), 'r');
  process.signal(SIGTERM);
  EXPECT_EQ(process.next_word(), '1');
  EXPECT_EQ(process.ends_at_once(), 7);
}

// As a server that is ready at the very moment of the signal: it ends by itself, and well. It has a fifth of a second
// to come; a machine that holds it up for longer gives it another try.
TEST(StopSignals, AnOwnerThatComesLateHasTimeToEnd) {
  for (int attempt = 0; attempt < 20; attempt++) {
    Stubborn process([](auto say) {
      static std::atomic<bool> has_called = false;
      static const std::stop_callback callback(stop_token_of_signals(), [] { has_called = true; });
      say('r');
      while (!has_called) std::this_thread::sleep_for(milliseconds(1));
      std::this_thread::sleep_for(milliseconds(50));  // the callbacks are done, and the end is near
      StopSignals signals(seconds(60));
      say(signals.wait_for(seconds(5)) == SIGTERM ? '1' : '?');
      std::this_thread::sleep_for(milliseconds(500));
      _exit(7);
    });
    ASSERT_EQ(process.next_word(), 'r');
    process.signal(SIGTERM);
    const char word = process.next_word();
    if (word == '-') continue;
    EXPECT_EQ(word, '1');
    EXPECT_EQ(process.ends_at_once(), 7);
    return;
  }
  FAIL() << "it was ended each time";
}

TEST(StopSignals, WakeIsNoSignal) {
  Stubborn process([](auto say) {
    StopSignals signals(std::nullopt);
    std::jthread other([&] { signals.wake(); });
    say(signals.wait() == 0 ? '0' : '?');
  });
  EXPECT_EQ(process.next_word(), '0');
}

TEST(StopSignals, AHangUpThatIsIgnoredStaysSoAndAnInterruptDoesNot) {
  const auto before = signal(SIGHUP, SIG_IGN);
  signal(SIGINT, SIG_IGN);  // as a shell's script does for what it starts in the background
  Stubborn process;
  signal(SIGHUP, before);
  signal(SIGINT, SIG_DFL);
  ASSERT_EQ(process.next_word(), 'r');
  process.signal(SIGHUP);
  EXPECT_EQ(process.ends_within(milliseconds(500)), std::nullopt);
  process.signal(SIGINT);
  EXPECT_EQ(process.ends_at_once(), 128 + SIGINT);
}

TEST(StopSignals, AReaderThatGoesAwayEndsNothingAndStandardDescriptorsAreTaken) {
  Process process = fork_process([] {
    for (int fd = 0; fd < 3; fd++) close(fd);
    take_stop_signals();
    std::array<int, 2> ends{};
    if (pipe(ends.data()) != 0 || ends[0] < 3) return 1;
    close(ends[0]);
    return write(ends[1], "x", 1) < 0 && errno == EPIPE ? 0 : 2;
  });
  EXPECT_EQ(process.wait_for(seconds(20)), 0);
}

TEST(InterruptHandler, TakesOneInterruptAndNoOtherSignal) {
  Stubborn process([](auto say) {
    static const InterruptHandler handler([say] { say('i'); });
    say('r');
  });
  ASSERT_EQ(process.next_word(), 'r');
  process.signal(SIGINT);
  EXPECT_EQ(process.next_word(), 'i');
  EXPECT_EQ(process.ends_within(milliseconds(500)), std::nullopt);
  process.signal(SIGINT);
  EXPECT_EQ(process.ends_at_once(), 128 + SIGINT);
}

TEST(InterruptHandler, MayAskWhatSignalsCame) {
  Stubborn process([](auto say) {
    static const InterruptHandler handler([say] { say(received_stop_signal() == 0 ? 'n' : 's'); });
    say('r');
  });
  ASSERT_EQ(process.next_word(), 'r');
  process.signal(SIGINT);
  EXPECT_EQ(process.next_word(), 'n');
  process.signal(SIGTERM);
  EXPECT_EQ(process.ends_at_once(), 128 + SIGTERM);
}

}  // namespace
}  // namespace cachalot
