#include "base/file.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <algorithm>

#include "base/folder_test_util.h"

namespace cachalot {
namespace {

using testing::HasSubstr;
using testing::UnorderedElementsAre;

class FileTest : public testing::Test {
 protected:
  std::string error_of(const std::string& path) {
    const auto text = read_file(path);
    return text ? "no error" : text.error().message;
  }
  TestFolder scratch_;
};

TEST_F(FileTest, IsWrittenAndReadWhole) {
  const std::string text(300'000, 'x');
  ASSERT_TRUE(write_file(scratch_.path("a"), text));
  EXPECT_EQ(read_file(scratch_.path("a")), text);
  ASSERT_TRUE(write_file(scratch_.path("a"), ""));
  EXPECT_EQ(read_file(scratch_.path("a")), "");
  EXPECT_THAT(names_in_folder(scratch_.path()), UnorderedElementsAre("a"));
}

// Whoever opened one of these for reading would wait, for a writer of a FIFO say, or get something else.
TEST_F(FileTest, WhatIsNoFileIsRefusedByWhatItIs) {
  ASSERT_EQ(mkfifo(scratch_.path("fifo").c_str(), 0600), 0);
  ASSERT_EQ(mkdir(scratch_.path("folder").c_str(), 0700), 0);
  const FileDescriptor listener(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{.sun_family = AF_UNIX};
  std::ranges::copy(scratch_.path("socket"), address.sun_path);
  ASSERT_EQ(bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  EXPECT_EQ(error_of(scratch_.path("fifo")), scratch_.path("fifo") + " is a FIFO; a file is wanted there");
  EXPECT_EQ(error_of(scratch_.path("folder")), scratch_.path("folder") + " is a directory; a file is wanted there");
  EXPECT_EQ(error_of(scratch_.path("socket")), scratch_.path("socket") + " is a socket; a file is wanted there");
  EXPECT_EQ(error_of("/dev/zero"), "/dev/zero is a device; a file is wanted there");
  ASSERT_EQ(symlink("fifo", scratch_.path("link").c_str()), 0);
  EXPECT_THAT(error_of(scratch_.path("link")), HasSubstr("link is a FIFO"));
}

TEST_F(FileTest, WhatCannotBeOpenedIsNamed) {
  const auto missing = read_file(scratch_.path("none"));
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code, ErrorCode::kNotFound);
  EXPECT_EQ(missing.error().message, scratch_.path("none") + ": cannot open: No such file or directory");
  ASSERT_EQ(symlink("round", scratch_.path("round").c_str()), 0);
  EXPECT_THAT(error_of(scratch_.path("round")), HasSubstr("Too many levels of symbolic links"));
  ASSERT_TRUE(write_file(scratch_.path("secret"), "x"));
  ASSERT_EQ(chmod(scratch_.path("secret").c_str(), 0), 0);
  if (geteuid() == 0) return;  // may read everything
  EXPECT_THAT(error_of(scratch_.path("secret")), HasSubstr("cannot open: Permission denied"));
}

TEST_F(FileTest, ATextOfUnlikelySizeIsRefused) {
  const FileDescriptor file(open(scratch_.path("large").c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
  ASSERT_EQ(ftruncate(file.get(), off_t{1} << 33), 0);
  EXPECT_EQ(error_of(scratch_.path("large")),
            scratch_.path("large") + " has 8589934592 bytes; no file of this kind has more than 16777216");
  ASSERT_EQ(ftruncate(file.get(), kMostSettingsBytes), 0);
  EXPECT_TRUE(read_file(scratch_.path("large")));
  ASSERT_EQ(ftruncate(file.get(), kMostSettingsBytes + 1), 0);
  EXPECT_FALSE(read_file(scratch_.path("large")));
  EXPECT_TRUE(read_file(scratch_.path("large"), kMostTableBytes));
  // One whose size the system does not say.
  EXPECT_THAT(read_file("/proc/self/maps", 100).error().message, HasSubstr("/proc/self/maps has "));
}

TEST_F(FileTest, WritingWaitsForNobody) {
  ASSERT_EQ(mkfifo(scratch_.path("a.part").c_str(), 0600), 0);
  const Status written = write_file(scratch_.path("a"), "x");
  ASSERT_FALSE(written);
  EXPECT_THAT(written.error().message, HasSubstr("a.part: cannot create: No such device or address"));
}

}  // namespace
}  // namespace cachalot
