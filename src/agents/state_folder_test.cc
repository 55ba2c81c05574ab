#include "agents/state_folder.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "base/folder_test_util.h"

namespace cachalot::agents {
namespace {

LogState example() {
  LogState state{.name = {.generation = 2, .group = 77},
                 .voter = 12,
                 .server = 1,
                 .term = 9,
                 .vote = 12,
                 .base = {.index = 4,
                          .term = 8,
                          .voters = {{.id = 12, .server = 1}, {.id = 13, .server = 0, .votes = false}},
                          .epoch = {.number = 5, .placement_version = 3, .members = {}, .given_up = {2}}},
                 .entries = {{.term = 9, .type = 0, .id = 5, .data = std::string("\0x", 2)}}};
  state.base.epoch.members = {{.process = 0xfedcba9876543210, .rank = 3, .server = 1, .card = "how to reach it"}};
  return state;
}

TEST(StateFolder, HoldsWhatWasStoredLast) {
  const TestFolder folder;
  const std::string path = folder.path() + "/made/for/it";
  {
    const auto opened = StateFolder::open(path, 1);
    ASSERT_TRUE(opened) << opened.error().message;
    EXPECT_FALSE(opened->state());
    LogState old = example();
    old.term = 1;
    ASSERT_TRUE(opened->store(encode_state(old)));
    ASSERT_TRUE(opened->store(encode_state(example())));
  }
  // What a crash leaves beside it counts for nothing.
  ASSERT_TRUE(write_file(path + "/epochs.new", "half a"));
  const auto again = StateFolder::open(path, 1);
  ASSERT_TRUE(again) << again.error().message;
  EXPECT_EQ(again->state(), example());
}

TEST(StateFolder, IsOneAgentsAlone) {
  const TestFolder folder;
  const auto first = StateFolder::open(folder.path(), 0);
  ASSERT_TRUE(first);
  const auto second = StateFolder::open(folder.path(), 0);
  ASSERT_FALSE(second);
  EXPECT_NE(second.error().message.find("another agent uses this folder"), std::string::npos);
}

TEST(StateFolder, NamesAFileThatIsAnotherServers) {
  const TestFolder folder;
  ASSERT_TRUE(StateFolder::open(folder.path(), 1)->store(encode_state(example())));
  const auto opened = StateFolder::open(folder.path(), 4);
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().message, folder.path() + "/epochs: it is the state of server 1, and this is server 4");
}

TEST(StateFolder, NamesAFileThatIsDamagedWhereverItIs) {
  const TestFolder folder;
  const std::string sound = encode_state(example());
  ASSERT_TRUE(decode_state(sound));
  for (size_t place = 0; place < sound.size(); place++) {
    std::string changed = sound;
    changed[place] = static_cast<char>(changed[place] ^ 0x10);
    // Two bytes of the header are for later.
    EXPECT_EQ(decode_state(changed).has_value(), place == 6 || place == 7) << place;
    EXPECT_FALSE(decode_state(sound.substr(0, place))) << place;
  }
  ASSERT_TRUE(write_file(folder.path() + "/epochs", sound.substr(0, 50)));
  const auto opened = StateFolder::open(folder.path(), 1);
  ASSERT_FALSE(opened);
  EXPECT_NE(opened.error().message.find("/epochs: it is damaged: 50 bytes"), std::string::npos)
      << opened.error().message;
  ASSERT_TRUE(write_file(folder.path() + "/epochs", "#!/bin/sh and more of it"));
  EXPECT_NE(StateFolder::open(folder.path(), 1).error().message.find("it is no agent's state"), std::string::npos);
}

}  // namespace
}  // namespace cachalot::agents
