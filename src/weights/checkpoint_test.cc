#include "weights/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "weights/files_test_util.h"

namespace cachalot {
namespace {

using testing::HasSubstr;

const std::vector<TensorSpec> kTensors{{"a", DType::kF32, {8}}, {"b", DType::kBF16, {4, 4}}, {"c", DType::kI32, {8}}};

void write_index(const TestFolder& folder, std::string_view text) {
  ASSERT_TRUE(write_file(folder.path("model.safetensors.index.json"), text));
}

TEST(Checkpoint, ReadsOneFileAndShardsAlike) {
  for (const uint64_t shard_bytes : {1000, 64, 1}) {
    const TestFolder folder;
    write_zeros(folder.path(), kTensors, shard_bytes);
    const Result<Checkpoint> checkpoint = Checkpoint::open(folder.path());
    ASSERT_TRUE(checkpoint) << message_of(checkpoint);
    EXPECT_EQ(checkpoint->files().size(), shard_bytes == 1000 ? 1u : shard_bytes == 64 ? 2u : 3u);
    EXPECT_EQ(checkpoint->num_bytes(), 96u);
    ASSERT_TRUE(checkpoint->find("b"));
    EXPECT_EQ(checkpoint->find("b")->spec.shape, (std::vector<int64_t>{4, 4}));
    EXPECT_EQ(checkpoint->find("d"), nullptr);
  }
}

TEST(Checkpoint, KeepsItsBytesAfterPagesWereDropped) {
  const TestFolder folder;
  write_zeros(folder.path(), {{"x", DType::kU8, {100'000}}});
  const Result<Checkpoint> checkpoint = Checkpoint::open(folder.path());
  const std::span<const std::byte> data = checkpoint->find("x")->data;
  checkpoint->prefetch(data);
  EXPECT_EQ(data[50'000], std::byte{0});
  checkpoint->drop_pages(data.subspan(10, 60'000));
  EXPECT_EQ(data[50'000], std::byte{0});
}

// Touching such a page would end the process.
TEST(Checkpoint, SaysThatAFileWhichWasCutShortCannotBeReadAnyMore) {
  const TestFolder folder;
  write_zeros(folder.path(), {{"x", DType::kU8, {100'000}}});
  const Result<Checkpoint> checkpoint = Checkpoint::open(folder.path());
  const std::span<const std::byte> data = checkpoint->find("x")->data;
  EXPECT_TRUE(checkpoint->fetch_pages(data));
  std::filesystem::resize_file(checkpoint->files()[0].path(), 4096);
  checkpoint->drop_pages(data);
  const Status fetched = checkpoint->fetch_pages(data);
  if (fetched) GTEST_SKIP() << "this kernel reads no pages ahead";
  EXPECT_THAT(fetched.error().message, HasSubstr("cannot be read"));
}

TEST(Checkpoint, SaysWhatAFolderWithoutSafetensorsHolds) {
  const TestFolder folder;
  EXPECT_THAT(message_of(Checkpoint::open(folder.path())),
              HasSubstr("neither model.safetensors nor model.safetensors.index.json"));
  ASSERT_TRUE(write_file(folder.path("pytorch_model.bin"), "x"));
  EXPECT_THAT(message_of(Checkpoint::open(folder.path())), HasSubstr("found: pytorch_model.bin"));
}

TEST(Checkpoint, NamesTheFaultOfAnIndex) {
  const TestFolder folder;
  write_zeros(folder.path(), kTensors, 64);
  struct Case {
    const char* index;
    const char* message;
  };
  for (const Case& broken : {
           Case{"{", "no valid JSON"},
           Case{"{}", "weight_map must be an object"},
           Case{R"({"weight_map": {}})", "weight_map is empty"},
           Case{R"({"weight_map": {"a": 4}})", "tensor a: 4 is no file name"},
           Case{R"({"weight_map": {"a": "../a.safetensors"}})", "is no file name"},
           Case{R"({"weight_map": {"a": "model-00009-of-00002.safetensors"}})",
                "1 of the 1 files that model.safetensors.index.json names are not there: "
                "model-00009-of-00002.safetensors"},
           Case{R"({"weight_map": {"z": "model-00001-of-00002.safetensors"}})",
                "tensor z is not in model-00001-of-00002.safetensors"},
           Case{R"({"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}})",
                "model-00001-of-00002.safetensors: tensor b is here; model.safetensors.index.json has it in "
                "model-00002-of-00002.safetensors"},
           Case{R"({"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "absent.safetensors"}})",
                "1 of the 2 files that model.safetensors.index.json names are not there: absent.safetensors"},
           Case{R"({"weight_map": {"a": "model-00001-of-00002.safetensors", "a": "model-00002-of-00002.safetensors"}})",
                "the key 'a' stands twice"},
       }) {
    write_index(folder, broken.index);
    EXPECT_THAT(message_of(Checkpoint::open(folder.path())), HasSubstr(broken.message));
  }
}

TEST(Checkpoint, RefusesATensorThatTwoShardsHold) {
  const TestFolder folder;
  write_zeros(folder.path(), kTensors, 64);
  std::filesystem::copy_file(folder.path("model-00001-of-00002.safetensors"), folder.path("copy.safetensors"));
  write_index(folder, R"({"weight_map": {"a": "model-00001-of-00002.safetensors", "c": "copy.safetensors"}})");
  EXPECT_THAT(message_of(Checkpoint::open(folder.path())), HasSubstr("is a duplicate: it is in " + folder.path()));
}

TEST(Checkpoint, TellsInOneLineWhatTheIndexOmits) {
  const TestFolder folder;
  write_zeros(folder.path(), {{"a", DType::kU8, {64}}, {"b\n", DType::kU8, {1}}, {"c", DType::kU8, {1}}}, 64);
  write_index(folder,
              R"({"weight_map": {"a": "model-00001-of-00002.safetensors", "c": "model-00002-of-00002.safetensors"}})");
  const Result<Checkpoint> checkpoint = Checkpoint::open(folder.path());
  ASSERT_TRUE(checkpoint) << message_of(checkpoint);
  EXPECT_THAT(
      checkpoint->notes(),
      testing::ElementsAre(HasSubstr("1 tensors are not in model.safetensors.index.json and are left out: 'b\\n'")));
  EXPECT_EQ(checkpoint->find("b\n"), nullptr);
}

TEST(Checkpoint, AFolderWithTwoModelsIsRefused) {
  const TestFolder folder;
  write_zeros(folder.path(), kTensors, 64);
  std::filesystem::copy_file(folder.path("model-00001-of-00002.safetensors"), folder.path("model.safetensors"));
  EXPECT_THAT(message_of(Checkpoint::open(folder.path())),
              HasSubstr("holds two models, model.safetensors and the shards"));
  // An index that stayed behind when its shards were made one.
  std::filesystem::remove(folder.path("model-00001-of-00002.safetensors"));
  std::filesystem::remove(folder.path("model-00002-of-00002.safetensors"));
  const Result<Checkpoint> checkpoint = Checkpoint::open(folder.path());
  ASSERT_TRUE(checkpoint) << message_of(checkpoint);
  EXPECT_THAT(checkpoint->notes(), testing::ElementsAre(HasSubstr("model.safetensors is read; ")));
}

TEST(Checkpoint, SaysWhatAWeightFileIsInstead) {
  const TestFolder folder;
  for (const auto& [text, what] : std::vector<std::pair<std::string, std::string>>{
           {"version https://git-lfs.github.com/spec/v1\noid sha256:4\nsize 9\n", "a git-lfs pointer"},
           {"<html><body>404</body></html>", "a web page"},
           {"GGUF\3", "a GGUF file"},
           {std::string("PK\3\4", 4) + "data", "a zip archive"},
           {"Entry not found", "'Entry not found'"},
           {"", "empty"}}) {
    ASSERT_TRUE(write_file(folder.path("model.safetensors"), text));
    EXPECT_THAT(message_of(Checkpoint::open(folder.path())), HasSubstr(what));
  }
}

TEST(Checkpoint, FingerprintChangesWithConfigHeaderSizeAndData) {
  const TestFolder folder;
  const auto fingerprint = [&](std::string_view config, const std::vector<TensorSpec>& tensors) {
    std::filesystem::remove(folder.path("model.safetensors"));
    write_zeros(folder.path(), tensors);
    EXPECT_TRUE(write_file(folder.path("config.json"), config));
    return fingerprint_of(Checkpoint::open(folder.path()).value()).value();
  };
  const std::string first = fingerprint("{}", kTensors);
  EXPECT_EQ(first.size(), 32u);
  EXPECT_EQ(fingerprint("{}", kTensors), first);
  EXPECT_NE(fingerprint("{ }", kTensors), first);
  std::vector<TensorSpec> renamed = kTensors;
  renamed[0].name = "z";
  EXPECT_NE(fingerprint("{}", renamed), first);

  fingerprint("{}", kTensors);
  std::fstream file(folder.path("model.safetensors"), std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(-5, std::ios::end);
  file.put('x').flush();
  EXPECT_NE(fingerprint_of(Checkpoint::open(folder.path()).value()).value(), first);
}

// A byte between the sampled pages: samples alone do not see it.
TEST(Fingerprint, OfTheWholeSeesWhatSamplesMiss) {
  const TestFolder folder;
  write_zeros(folder.path(), {{"weight", DType::kF32, {1024, 1024}}});
  ASSERT_TRUE(write_file(folder.path("config.json"), "{}"));
  const auto fingerprint = [&](FingerprintDepth depth) {
    return fingerprint_of(Checkpoint::open(folder.path()).value(), depth).value();
  };
  const std::string sampled = fingerprint(FingerprintDepth::kSampled), whole = fingerprint(FingerprintDepth::kWhole);
  EXPECT_NE(sampled, whole);
  EXPECT_EQ(fingerprint(FingerprintDepth::kWhole), whole);
  std::fstream file(folder.path("model.safetensors"), std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(100'000, std::ios::beg);
  file.put('x').flush();
  EXPECT_EQ(fingerprint(FingerprintDepth::kSampled), sampled);
  EXPECT_NE(fingerprint(FingerprintDepth::kWhole), whole);
}

}  // namespace

}  // namespace cachalot
