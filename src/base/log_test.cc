#include "base/log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace cachalot {
namespace {

using testing::MatchesRegex;

std::string written(log::Format format, const std::function<void()>& write) {
  testing::internal::CaptureStderr();
  log::init("info", "rank 3", format);
  write();
  std::string text = testing::internal::GetCapturedStderr();
  log::init("info", {});
  return text;
}

TEST(Log, JsonLinesAreObjects) {
  const std::string text = written(log::Format::kJson, [] {
    log::warn("a \"word\"\nand {}", "\x01\\");
    log::info_of("req-7", "done");
    log::debug("not shown");
  });
  const std::string begin = R"(\{"time":"20[0-9][0-9]-[0-9][0-9]-[0-9][0-9]T[0-9:]*\.[0-9][0-9][0-9]Z","level":)";
  EXPECT_THAT(text,
              MatchesRegex(begin + R"("warning","rank":"rank 3","message":"a \\"word\\"\\nand \\u0001\\\\"\})" + "\n" +
                           begin + R"("info","rank":"rank 3","request_id":"req-7","message":"done"\})" + "\n"));
}

TEST(Log, TextLinesSayWhoseRequestItIs) {
  EXPECT_THAT(written(log::Format::kText, [] { log::info_of("req 7", "done"); }),
              MatchesRegex("20[-0-9]* [0-9:.]* I rank 3: 'req 7': done\n"));
}

}  // namespace
}  // namespace cachalot
