#include "router/request_facts.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace cachalot::router {

namespace {

using testing::ElementsAre;
using testing::IsEmpty;

std::string text(char letter, size_t size) {
  return std::string(size, letter);
}

TEST(Prefixes, HaveDoubledLengthsUpToTheLongest) {
  EXPECT_THAT(prefixes_of(text('a', 255)), IsEmpty());
  const auto prefixes = prefixes_of(text('a', 1100));
  ASSERT_EQ(prefixes.size(), 3u);
  EXPECT_EQ(prefixes[0].num_bytes, 256u);
  EXPECT_EQ(prefixes[2].num_bytes, 1024u);
  EXPECT_EQ(prefixes_of(text('a', 1 << 20)).back().num_bytes, Prefix::kLongest);
}

TEST(PrefixAffinity, KnowsTheLongestCommonBeginning) {
  PrefixAffinity affinity(100);
  affinity.remember(prefixes_of(text('a', 600) + text('b', 600)), 1);
  EXPECT_THAT(affinity.known_bytes(prefixes_of(text('a', 600) + text('c', 600)), 3), ElementsAre(0, 512, 0));
  EXPECT_THAT(affinity.known_bytes(prefixes_of(text('a', 600) + text('b', 900)), 3), ElementsAre(0, 1024, 0));
  EXPECT_THAT(affinity.known_bytes(prefixes_of(text('x', 600)), 3), ElementsAre(0, 0, 0));
}

TEST(PrefixAffinity, TheLastReplicaToSeeABeginningHasIt) {
  PrefixAffinity affinity(100);
  affinity.remember(prefixes_of(text('a', 1024)), 0);
  affinity.remember(prefixes_of(text('a', 512) + text('b', 512)), 2);
  // The longer beginning is still where it was.
  EXPECT_THAT(affinity.known_bytes(prefixes_of(text('a', 1024)), 3), ElementsAre(1024, 0, 512));
}

TEST(PrefixAffinity, ForgetsWhatWasUsedLongestAgo) {
  PrefixAffinity affinity(2);
  const auto a = prefixes_of(text('a', 256)), b = prefixes_of(text('b', 256)), c = prefixes_of(text('c', 256));
  affinity.remember(a, 0);
  affinity.remember(b, 0);
  affinity.remember(a, 0);
  affinity.remember(c, 0);
  EXPECT_EQ(affinity.size(), 2u);
  EXPECT_THAT(affinity.known_bytes(a, 1), ElementsAre(256));
  EXPECT_THAT(affinity.known_bytes(b, 1), ElementsAre(0));
  EXPECT_THAT(affinity.known_bytes(c, 1), ElementsAre(256));
}

TEST(PrefixAffinity, ForgetsAReplicaThatWentAway) {
  PrefixAffinity affinity(100);
  affinity.remember(prefixes_of(text('a', 512)), 0);
  affinity.remember(prefixes_of(text('b', 512)), 1);
  affinity.forget(0);
  EXPECT_THAT(affinity.known_bytes(prefixes_of(text('a', 512)), 2), ElementsAre(0, 0));
  EXPECT_THAT(affinity.known_bytes(prefixes_of(text('b', 512)), 2), ElementsAre(0, 512));
}

TEST(PrefixAffinity, OfNoEntriesRemembersNothing) {
  PrefixAffinity affinity(0);
  affinity.remember(prefixes_of(text('a', 512)), 0);
  EXPECT_EQ(affinity.size(), 0u);
}

const std::string kLong(2000, 'x');

std::vector<uint64_t> hashes(const std::string& body) {
  std::vector<uint64_t> all;
  for (const Prefix& prefix : read_request_facts(body).prefixes) all.push_back(prefix.hash);
  return all;
}

TEST(RequestFacts, TokensAreEstimatedFromTheTextOrCounted) {
  EXPECT_EQ(read_request_facts(R"({"model": "m", "prompt": "12345678", "max_tokens": 1000})").num_prompt_tokens, 2);
  EXPECT_EQ(read_request_facts(R"({"prompt": [1, 2, 3, 4, 5]})").num_prompt_tokens, 5);
  EXPECT_EQ(read_request_facts(R"({"prompt": ["1234", "12345678"]})").num_prompt_tokens, 3);
  EXPECT_GT(read_request_facts(R"({"messages": [{"role": "user", "content": ")" + kLong + "\"}]}").num_prompt_tokens,
            499);
}

TEST(RequestFacts, ThePromptAloneMakesThePrefixes) {
  const auto prefixes = hashes(fmt::format(R"({{"prompt": "{}"}})", kLong));
  EXPECT_EQ(prefixes.size(), 3u);
  EXPECT_EQ(
      hashes(fmt::format(R"({{"temperature": 0.5, "stop": ["{}"], "model": "m", "prompt": "{}"}})", kLong, kLong)),
      prefixes);
  EXPECT_EQ(hashes(fmt::format(R"({{"prompt": "{}"}})", kLong + "more")), prefixes);
  EXPECT_NE(hashes(fmt::format(R"({{"prompt": "y{}"}})", kLong)), prefixes);
}

TEST(RequestFacts, ADialogueThatGoesOnBeginsAsBefore) {
  const std::string first = fmt::format(R"({{"role": "user", "content": "{}"}})", kLong);
  const auto before = hashes(fmt::format(R"({{"messages": [{}]}})", first));
  const auto after = hashes(
      fmt::format(R"({{"stream": true, "messages": [{}, {{"role": "assistant", "content": "{}"}}]}})", first, kLong));
  ASSERT_GT(after.size(), before.size());
  EXPECT_TRUE(std::equal(before.begin(), before.end(), after.begin()));
  const std::string other = fmt::format(R"({{"role": "system", "content": "{}"}})", kLong);
  EXPECT_NE(hashes(fmt::format(R"({{"messages": [{}]}})", other)), before);
}

TEST(RequestFacts, WhatIsNotJsonHasNone) {
  for (const std::string& body :
       {std::string(), std::string("{"), std::string("hello"), kLong, std::string(10'000, '['),
        std::string("[{\"prompt\": \"x\"}]"), std::string("\xff\xfe{}")}) {
    EXPECT_EQ(read_request_facts(body).num_prompt_tokens, 0) << body.substr(0, 40);
    EXPECT_TRUE(read_request_facts(body).prefixes.empty());
  }
}

TEST(RequestFacts, ThePromptsOfOtherProtocolsCountToo) {
  EXPECT_EQ(read_request_facts(R"({"input": "12345678"})").num_prompt_tokens, 2);
  EXPECT_EQ(hashes(fmt::format(R"({{"input": "{}"}})", kLong)).size(), 3u);
  EXPECT_EQ(hashes(fmt::format(R"({{"instructions": "{}", "input": "a"}})", kLong)).size(), 3u);
  EXPECT_EQ(hashes(fmt::format(R"({{"system": [{{"type": "text", "text": "{}"}}]}})", kLong)).size(), 3u);
}

TEST(RequestFacts, WhatIsStoredIsNamedByThePreviousResponseOrAReference) {
  const auto stored_id = [](const std::string& body) { return read_request_facts(body, true).stored_id; };
  EXPECT_EQ(stored_id(R"({"input": "a", "previous_response_id": "resp_1"})"), "resp_1");
  EXPECT_EQ(stored_id(R"({"input": [{"role": "user", "content": [{"type": "input_text", "text": "a", "id": "x"}]},
      {"type": "item_reference", "id": "msg_1"}, {"id": "msg_2", "type": "item_reference"}]})"),
            "msg_1");
  EXPECT_EQ(stored_id(R"({"input": [{"id": "msg_2", "type": "item_reference"}], "previous_response_id": "resp_1"})"),
            "resp_1");
  EXPECT_EQ(stored_id(R"({"input": [{"id": "msg_1", "type": "message"}], "other": [{"type": "item_reference",
      "id": "x"}], "metadata": {"previous_response_id": "y"}, "previous_response_id": null})"),
            "");
  const std::string behind =
      fmt::format(R"({{"input": "{}", "previous_response_id": "resp_1"}})", std::string(1 << 19, 'x'));
  EXPECT_EQ(stored_id(behind), "resp_1") << "a body that may have one is read to its end";
  EXPECT_EQ(read_request_facts(behind).stored_id, "");
  EXPECT_LE(stored_id(fmt::format(R"({{"previous_response_id": "{}"}})", kLong)).size(), 256u);
}

TEST(RequestFacts, OfABodyThatIsCutOffIsWhatIsThere) {
  EXPECT_EQ(hashes(R"({"prompt": ")" + kLong), hashes(R"({"prompt": ")" + kLong + "\"}"));
}

TEST(Suspects, ARequestThatWasLostThriceIsRefusedForAWhileThatDoubles) {
  Suspects suspects;
  const auto start = Suspects::Time();
  EXPECT_TRUE(suspects.empty());
  for (int losses = 0; losses < 2; losses++) suspects.add(1, start);
  EXPECT_FALSE(suspects.empty());
  EXPECT_FALSE(suspects.refused_for(1, start)) << "a replica may end for other reasons";
  suspects.add(1, start);
  EXPECT_EQ(suspects.refused_for(1, start), std::chrono::seconds(30));
  EXPECT_EQ(suspects.refused_for(1, start + std::chrono::seconds(29)), std::chrono::seconds(1));
  EXPECT_FALSE(suspects.refused_for(1, start + std::chrono::seconds(30)));
  EXPECT_FALSE(suspects.refused_for(2, start));
  suspects.add(1, start);
  EXPECT_EQ(suspects.refused_for(1, start), std::chrono::seconds(60));
  for (int losses = 0; losses < 3; losses++) suspects.add(2, start);
  suspects.acquit(2);
  EXPECT_FALSE(suspects.refused_for(2, start)) << "it was answered";
  for (uint64_t other = 10; other < 10'000; other++) suspects.add(other, start + std::chrono::seconds(1));
  EXPECT_FALSE(suspects.refused_for(1, start)) << "the oldest is forgotten first";
}

}  // namespace

}  // namespace cachalot::router
