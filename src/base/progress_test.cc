#include "base/progress.h"

#include <gtest/gtest.h>

namespace cachalot {
namespace {

TEST(Progress, ShowsShareAmountsSpeedAndTimeLeft) {
  EXPECT_EQ(progress_line("writing", 500'000'000, 2'000'000'000, 1.0),
            "writing [######..................]  25%  500.0 MB of 2.0 GB, 500.0 MB/s, 3 s left");
  EXPECT_EQ(progress_line("x", 0, 10, 0), "x [........................]   0%  0 bytes of 10 bytes");
  EXPECT_EQ(progress_line("x", 0, 0, 0), "x [########################] 100%  0 bytes of 0 bytes");
}

TEST(Progress, CountsThings) {
  EXPECT_EQ(progress_line("asking", 5, 20, 2.0, "questions"),
            "asking [######..................]  25%  5 of 20 questions, 2.5 a second, 6 s left");
  EXPECT_EQ(progress_line("asking", 0, 20, 2.0, "questions"),
            "asking [........................]   0%  0 of 20 questions");
}

TEST(Progress, WhereNobodyWatchesATerminalOnlyChangedLinesAreWritten) {
  std::FILE* const file = std::tmpfile();
  {
    ProgressLines lines(file, std::chrono::milliseconds(0));
    lines.show({"a 1%", "b 1%"}, false);
    lines.show({"a 1%", "b 2%"}, false);
    lines.show({"a 9%", "b 2%"}, true);
  }
  std::rewind(file);
  std::string text(100, 0);
  text.resize(std::fread(text.data(), 1, text.size(), file));
  std::fclose(file);
  EXPECT_EQ(text, "a 1%\nb 1%\nb 2%\na 9%\n");
}

TEST(Progress, ButTheLastLinesAreAlwaysShown) {
  std::FILE* const file = std::tmpfile();
  ProgressLines lines(file, std::chrono::hours(1));
  lines.show({"5%"}, false);
  lines.show({"100%"}, true);
  std::rewind(file);
  std::string text(100, 0);
  text.resize(std::fread(text.data(), 1, text.size(), file));
  std::fclose(file);
  EXPECT_EQ(text, "100%\n");
}

TEST(Progress, WritesBytesInTheUnitThatFits) {
  EXPECT_EQ(bytes_text(999), "999 bytes");
  EXPECT_EQ(bytes_text(1500), "1.5 kB");
  EXPECT_EQ(bytes_text(999'960), "1.0 MB");
  EXPECT_EQ(bytes_text(688'600'000'000), "688.6 GB");
  EXPECT_EQ(bytes_text(2'500'000'000'000), "2.5 TB");
}

}  // namespace
}  // namespace cachalot
