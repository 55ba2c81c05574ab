#include "weights/mapped_file.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <vector>

#include "base/file.h"
#include "base/folder_test_util.h"
#include "base/process_test_util.h"

namespace cachalot {
namespace {

using testing::HasSubstr;

class MappedFileTest : public testing::Test {
 protected:
  MappedFileTest() {
    for (const char* name : {"a", "b", "c"})
      EXPECT_TRUE(write_file(scratch_.path(name), std::string(1 << 16, name[0])));
  }
  TestFolder scratch_;
};

TEST_F(MappedFileTest, OneThatIsCutShortEndsItsReaderWithItsName) {
  Process reader = fork_process([&] {
    const FileDescriptor said(open(scratch_.path("said").c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    dup2(said.get(), STDERR_FILENO);
    std::vector<MappedFile> files;
    for (const char* name : {"a", "b", "c"}) files.push_back(MappedFile::open(scratch_.path(name)).value());
    files.erase(files.begin());
    std::filesystem::resize_file(scratch_.path("b"), 100);
    return files[0].bytes().back() == std::byte{'b'} ? 50 : 60;
  });
  EXPECT_EQ(reader.wait(), 1);
  EXPECT_EQ(read_file(scratch_.path("said")),
            "cachalot: " + scratch_.path("b") +
                ": the file was cut short while it was read; whoever writes it must be done first\n");
}

TEST_F(MappedFileTest, OtherBusErrorsAreWhatTheyWere) {
  Process reader = fork_process([&] {
    const MappedFile file = MappedFile::open(scratch_.path("a")).value();
    return raise(SIGBUS);
  });
  EXPECT_EQ(reader.wait(), 128 + SIGBUS);
}

TEST_F(MappedFileTest, WhatIsNoFileIsRefusedAndNotWaitedFor) {
  ASSERT_EQ(mkfifo(scratch_.path("fifo").c_str(), 0600), 0);
  EXPECT_THAT(MappedFile::open(scratch_.path("fifo")).error().message, HasSubstr("fifo is a FIFO"));
  EXPECT_THAT(MappedFile::open(scratch_.path()).error().message, HasSubstr(" is a directory"));
}

}  // namespace
}  // namespace cachalot
