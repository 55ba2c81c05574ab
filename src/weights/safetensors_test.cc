#include "weights/safetensors.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <random>

#include "base/file.h"
#include "base/folder_test_util.h"
#include "base/process_test_util.h"
#include "weights/files_test_util.h"

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
    signal(SIGBUS, SIG_DFL);  // AddressSanitizer has something to say to it
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

using testing::HasSubstr;

Result<SafetensorsFile> open_raw(const TestFolder& folder, std::string_view bytes) {
  const std::string path = folder.path("model.safetensors");
  EXPECT_TRUE(write_file(path, bytes));
  return SafetensorsFile::open(path);
}

TEST(Safetensors, ReadsWhatTheWriterWrote) {
  const TestFolder folder;
  const std::string path = folder.path("a.safetensors");
  Result<SafetensorsWriter> writer = SafetensorsWriter::create(path, {{"odd", DType::kF8E4M3, {3, 5}},
                                                                      {"scales", DType::kF32, {2}},
                                                                      {"empty", DType::kBF16, {0, 4}},
                                                                      {"one", DType::kI64, {}}});
  ASSERT_TRUE(writer) << message_of(writer);
  const float scales[2] = {1.5f, -2.f};
  const std::string odd = "0123456789abcde";
  const int64_t one = -7;
  ASSERT_TRUE(writer->write("odd", 0, std::as_bytes(std::span(odd)).first(6)));
  ASSERT_TRUE(writer->write("odd", 6, std::as_bytes(std::span(odd)).subspan(6)));
  ASSERT_TRUE(writer->write("scales", 0, std::as_bytes(std::span(scales))));
  ASSERT_TRUE(writer->write("one", 0, std::as_bytes(std::span(&one, 1))));
  EXPECT_FALSE(std::filesystem::exists(path)) << "an unfinished file must not have the name of a whole one";
  ASSERT_TRUE(writer->finish());

  const Result<SafetensorsFile> file = SafetensorsFile::open(path);
  ASSERT_TRUE(file) << message_of(file);
  ASSERT_EQ(file->tensors().size(), 4u);
  for (const TensorRef& tensor : file->tensors()) {
    EXPECT_EQ(reinterpret_cast<uintptr_t>(tensor.data.data()) % dtype_size(tensor.spec.dtype), 0u) << tensor.spec.name;
    EXPECT_EQ(*tensor.file, path);
    if (tensor.spec.name == "scales") {
      EXPECT_EQ(reinterpret_cast<const float*>(tensor.data.data())[1], -2.f);
    } else if (tensor.spec.name == "odd") {
      EXPECT_EQ(std::memcmp(tensor.data.data(), odd.data(), 15), 0);
      EXPECT_EQ(tensor.spec.shape, (std::vector<int64_t>{3, 5}));
    } else if (tensor.spec.name == "one") {
      EXPECT_EQ(*reinterpret_cast<const int64_t*>(tensor.data.data()), -7);
    }
  }
}

TEST(Safetensors, RemovesAnUnfinishedFile) {
  const TestFolder folder;
  {
    ASSERT_TRUE(SafetensorsWriter::create(folder.path("a.safetensors"), {{"x", DType::kF32, {4}}}));
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST(Safetensors, CopiesTensorsThatLieMisaligned) {
  const TestFolder folder;
  std::string bytes = raw_safetensors(R"({"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]} })", 4);
  if ((bytes.size() - 4) % 4 == 0)
    bytes = raw_safetensors(R"({"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 4);
  const float value = 3.25f;
  std::memcpy(bytes.data() + bytes.size() - 4, &value, 4);
  const Result<SafetensorsFile> file = open_raw(folder, bytes);
  ASSERT_TRUE(file) << message_of(file);
  const std::byte* data = file->tensors()[0].data.data();
  EXPECT_EQ(reinterpret_cast<uintptr_t>(data) % 4, 0u);
  EXPECT_EQ(*reinterpret_cast<const float*>(data), value);
}

TEST(Safetensors, NamesTheFaultOfAMalformedFile) {
  struct Case {
    std::string bytes;
    const char* message;
  };
  const std::string good = raw_safetensors(R"({"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 8);
  for (
      const Case& broken : {
          Case{"", "no safetensors file: it is empty"},
          Case{"1234567", "too short"},
          Case{good.substr(0, 30), "its header claims"},
          Case{good.substr(0, good.size() - 1), "tensor x: data_offsets [0, 8] reach beyond the end"},
          Case{good + "z", "the last 1 bytes belong to no tensor"},
          Case{std::string("\xff\xff\xff\xff\xff\xff\xff\xff{}", 10), "header claims 18446744073709551615 bytes"},
          Case{raw_safetensors("{\"x\": ", 0), "no valid JSON"},
          Case{raw_safetensors("[]", 0), "no JSON object"},
          Case{raw_safetensors(R"({"x":4})", 0), "tensor x: its header entry must hold"},
          Case{raw_safetensors(R"({"x":{"dtype":"F32","shape":[2]}})", 8), "tensor x: its header entry must hold"},
          Case{raw_safetensors(R"({"x":{"dtype":"F4","shape":[2],"data_offsets":[0,8]}})", 8),
               "tensor x: dtype F4 is not known"},
          Case{raw_safetensors(R"({"x":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})", 8),
               "does not take the 8 bytes"},
          Case{raw_safetensors(R"({"x":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}})", 8), "shape holds -2"},
          Case{raw_safetensors(R"({"x":{"dtype":"F32","shape":[2.5],"data_offsets":[0,8]}})", 8), "shape holds 2.5"},
          Case{raw_safetensors(R"({"x":{"dtype":"F32","shape":[4294967296,4294967296,2],"data_offsets":[0,8]}})", 8),
               "does not take"},
          Case{raw_safetensors(R"({"x":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}})", 8),
               "data_offsets are [8,0]"},
          Case{raw_safetensors(R"({"x":{"dtype":"F32","shape":[2],"data_offsets":[-8,0]}})", 8), "data_offsets are"},
          Case{
              raw_safetensors(
                  R"({"x":{"dtype":"F32","shape":[2],"data_offsets":[18446744073709551608,18446744073709551615]}})", 8),
              "reach beyond the end"},
          Case{
              raw_safetensors(
                  R"({"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"y":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})",
                  12),
              "tensors x and y overlap"},
          Case{
              raw_safetensors(
                  R"({"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"x":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
                  8),
              "the key 'x' stands twice"},
      }) {
    const TestFolder folder;
    const Result<SafetensorsFile> file = open_raw(folder, broken.bytes);
    ASSERT_FALSE(file) << broken.message;
    EXPECT_EQ(file.error().code, ErrorCode::kCorrupt);
    EXPECT_THAT(file.error().message, HasSubstr(broken.message));
    EXPECT_THAT(file.error().message, HasSubstr("model.safetensors: ")) << "every error names the file";
  }
}

TEST(Safetensors, SurvivesAnyChangeOfAByteOrACut) {
  const std::string good = raw_safetensors(
      R"({"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"y":{"dtype":"BF16","shape":[2,2],"data_offsets":[8,16]}})",
      16);
  const auto parse = [](const std::string& text) {
    return parse_safetensors_header(std::as_bytes(std::span(text)), text.size(), "f");
  };
  ASSERT_TRUE(parse(good));
  std::mt19937 random(7);
  int num_refused = 0;
  for (int round = 0; round < 5000; round++) {
    std::string broken = good;
    broken[random() % (good.size() - 16)] = static_cast<char>(random());
    if (round % 5 == 0) broken.resize(random() % good.size());
    const auto places = parse(broken);
    num_refused += !places;
    if (!places) continue;
    for (const TensorPlace& place : *places) {
      EXPECT_LE(place.end, broken.size());
      EXPECT_EQ(place.end - place.begin, place.spec.num_bytes());
    }
  }
  EXPECT_GT(num_refused, 3000);
}

TEST(Safetensors, NamesAFileThatCannotBeOpened) {
  EXPECT_THAT(message_of(SafetensorsFile::open("/nowhere/x.safetensors")),
              HasSubstr("/nowhere/x.safetensors: cannot open"));
  EXPECT_THAT(message_of(SafetensorsFile::open(testing::TempDir())), HasSubstr("is a directory"));
}

}  // namespace

}  // namespace cachalot
