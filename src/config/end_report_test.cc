#include "config/end_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstdlib>
#include <functional>
#include <stdexcept>
#include <thread>

#include "base/error.h"
#include "base/file.h"
#include "base/process_test_util.h"

namespace cachalot {
namespace {

using testing::HasSubstr;
using testing::Not;

TEST(EndReport, SaysHowAProcessEndedInWords) {
  EXPECT_EQ((EndReport{.status = 3}.text()), "ended with status 3");
  EXPECT_EQ((EndReport{.status = 1, .error = Error{ErrorCode::kNotFound, "m: cannot open", {}}}.text()),
            "ended with status 1: m: cannot open");
  EXPECT_EQ((EndReport{.status = 128 + SIGKILL, .out_of_memory = true}.text()),
            "was ended by signal 9 (Killed) when the system ran out of memory");
}

TEST(EndReport, IsReadBackAsItWasWritten) {
  const EndReport report{.status = 1, .error = Error{ErrorCode::kOutOfMemory, "it does not fit", {}}};
  const auto read = parse_end_report(to_json(report));
  ASSERT_TRUE(read);
  EXPECT_EQ(to_json(*read), to_json(report));
}

TEST(EndReport, OfAStrangerHarmsNobody) {
  for (const char* text : {"", "\n", "Welcome to node3!", "{}", "[]", "null", "{\"status\":1}",
                           "{\"version\":1,\"status\":\"1\"}", "{\"version\":1,\"status\":1e99}"})
    EXPECT_FALSE(parse_end_report(text)) << text;
  EXPECT_FALSE(parse_end_report(std::string(100'000, '[')));
  const auto odd = parse_end_report(
      "Last login: today\n{\"version\":1,\"status\":-5,\"code\":\"hunger\",\"message\":\"\\u001b[2J\"}\nbye\n");
  ASSERT_TRUE(odd);
  EXPECT_EQ(odd->status, 0);
  EXPECT_EQ(odd->error->code, ErrorCode::kInternal);
  EXPECT_THAT(odd->text(), Not(HasSubstr("\x1b")));
}

// What main() does, in a process of its own.
EndReport end_of_fault(const std::function<void()>& fault) {
  const FileDescriptor told(memfd_create("end", MFD_CLOEXEC));
  Process process = fork_process([&] {
    close(STDERR_FILENO);
    setenv(kEndReportVariable, std::to_string(told.get()).c_str(), 1);
    take_end_report();
    set_fault_report([](std::string_view message) {
      report_end({ErrorCode::kInternal, std::string(message), {}});
      CHECK(false, "what is told of a fault may meet another one");
    });
    std::thread(fault).join();
    return 0;
  });
  return read_end_report(told.get(), process.wait(), num_memory_kills());
}

TEST(EndReport, OfABrokenInvariantNamesItAndItsPlace) {
  const EndReport end = end_of_fault([] { CHECK(1 + 1 == 3, "{} \"apples\"\n\xff", 2); });
  EXPECT_THAT(end.text(),
              testing::MatchesRegex("was ended by signal 6 \\(Aborted\\): src/config/end_report_test.cc:[0-9]+: check "
                                    "failed: 1 \\+ 1 == 3: 2 \"apples\".*"));
  EXPECT_FALSE(end.text().contains('\n'));
  ASSERT_TRUE(end.error);
  EXPECT_EQ(end.error->code, ErrorCode::kInternal);
}

TEST(EndReport, OfAnExceptionThatNobodyCaughtSaysWhatItWas) {
  EXPECT_EQ(end_of_fault([] { throw std::runtime_error("no room"); }).text(),
            "was ended by signal 6 (Aborted): an exception that nobody caught: no room");
  EXPECT_THAT(end_of_fault([] { throw 1; }).text(), testing::HasSubstr("an exception that nobody caught: it is none"));
}

TEST(EndReport, EveryKindOfErrorHasAName) {
  for (int code = 0; code <= static_cast<int>(ErrorCode::kInternal); code++) {
    const auto name = name_of(static_cast<ErrorCode>(code));
    EXPECT_EQ(error_code_named(name), static_cast<ErrorCode>(code)) << name;
  }
  EXPECT_EQ(name_of(static_cast<ErrorCode>(99)), "internal");
  EXPECT_FALSE(error_code_named("nonsense"));
}

TEST(EndReport, GoesToTheDescriptorThatTheProcessWasGivenAndToNoOther) {
  std::array<int, 2> ends{};
  ASSERT_EQ(pipe(ends.data()), 0);
  setenv(kEndReportVariable, "2", 1);  // the errors are for people
  take_end_report();
  report_end({ErrorCode::kIo, "nobody reads this", {}});
  setenv(kEndReportVariable, std::to_string(ends[1]).c_str(), 1);
  take_end_report();
  EXPECT_EQ(std::getenv(kEndReportVariable), nullptr) << "children get none";
  report_end({ErrorCode::kIo, "the disk is gone", {}});
  std::array<char, 4096> text{};
  const ssize_t size = read(ends[0], text.data(), text.size());
  ASSERT_GT(size, 0);
  const auto report = parse_end_report(std::string_view(text.data(), static_cast<size_t>(size)));
  ASSERT_TRUE(report && report->error);
  EXPECT_EQ(report->error->message, "the disk is gone");
  close(ends[0]);
}

}  // namespace
}  // namespace cachalot
