#include "router/request_facts.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

namespace cachalot::router {
namespace {

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

TEST(RequestFacts, OfABodyThatIsCutOffIsWhatIsThere) {
  EXPECT_EQ(hashes(R"({"prompt": ")" + kLong), hashes(R"({"prompt": ")" + kLong + "\"}"));
}

}  // namespace
}  // namespace cachalot::router
