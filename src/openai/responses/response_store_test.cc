#include "openai/responses/response_store.h"

#include <gmock/gmock.h>

#include <set>

namespace cachalot::openai {
namespace {

using testing::StartsWith;

StoredResponse stored(const std::string& text, const std::string& previous = {}) {
  return {.owner = "me", .response = text, .input_items = "[]", .previous_id = previous};
}

TEST(ResponseStore, IdsNameTheirServerAndCannotBeGuessed) {
  const ResponseStore one(1 << 20), other(1 << 20);
  EXPECT_NE(one.mark(), other.mark());
  std::set<std::string> ids;
  for (int i = 0; i < 1000; ++i) ids.insert(one.make_id());
  EXPECT_EQ(ids.size(), 1000u);
  const std::string id = one.make_id();
  EXPECT_THAT(id, StartsWith("resp_" + one.mark()));
  EXPECT_EQ(id.size(), 5u + 16 + 32);
  EXPECT_EQ(response_ids::mark_of(id), one.mark());
  const std::string item = response_ids::of_item("msg", id, 3), input = response_ids::of_item("fco", id, 300, true);
  EXPECT_EQ(response_ids::mark_of(item), one.mark());
  EXPECT_EQ(response_ids::response_of_item(item), id);
  EXPECT_EQ(response_ids::response_of_item(input), id);
  EXPECT_LE(item.size(), 64u);
  for (const char* text : {"", "resp_", "resp_0123", "msg_67ccd2bf17f0819081ff3bb2cf6508e6", "chatcmpl-1",
                           "resp_0123456789ABCDEF0123456789abcdef0123456789abcdef"})
    EXPECT_FALSE(response_ids::mark_of(text)) << text;
}

TEST(ResponseStore, GivesToItsOwnerAlone) {
  ResponseStore store(1 << 20);
  store.put("a", stored("text"));
  ASSERT_TRUE(store.find("a", "me"));
  EXPECT_EQ(store.find("a", "me")->response, "text");
  EXPECT_FALSE(store.find("a", "other"));
  EXPECT_FALSE(store.find("b", "me"));
  EXPECT_FALSE(store.erase("a", "other"));
  EXPECT_TRUE(store.erase("a", "me"));
  EXPECT_FALSE(store.erase("a", "me"));
  EXPECT_EQ(store.num_bytes(), 0);
}

TEST(ResponseStore, WhatWasUsedLongestAgoGoesFirst) {
  ResponseStore store(10'000);
  const std::string large(2500, 'x');
  for (const char* id : {"a", "b", "c"}) store.put(id, stored(large));
  EXPECT_TRUE(store.find("a", "me"));
  store.put("d", stored(large));
  EXPECT_LE(store.num_bytes(), 10'000);
  EXPECT_TRUE(store.find("a", "me"));
  EXPECT_FALSE(store.find("b", "me"));
  EXPECT_TRUE(store.find("d", "me"));
  store.put("e", stored(std::string(20'000, 'x')));
  EXPECT_FALSE(store.find("e", "me")) << "it is larger than the store";
  EXPECT_TRUE(store.find("d", "me"));
}

TEST(ResponseStore, WhatOthersBuildUponStaysAsLongAsThey) {
  ResponseStore store(13'000);
  const std::string large(2500, 'x');
  store.put("a", stored("1" + large));
  store.put("b", stored("2" + large, "a"));
  store.put("other", stored(large));
  store.put("c", stored("3" + large, "b"));
  store.put("more", stored(large));
  const auto thread = store.find_thread("c", "me");
  ASSERT_EQ(thread.size(), 3u);
  for (size_t i = 0; i < thread.size(); ++i) {
    ASSERT_TRUE(thread[i]) << i;
    EXPECT_EQ(thread[i]->response.front(), static_cast<char>('1' + i));
  }
  EXPECT_FALSE(store.find("other", "me"));
  store.erase("a", "me");
  EXPECT_FALSE(store.find_thread("c", "me").front());
  EXPECT_EQ(store.find_thread("nobody", "me").size(), 1u);
}

}  // namespace
}  // namespace cachalot::openai
