#include "openai/api_pages.h"

#include <algorithm>

#include "openai/api_server_test_util.h"

namespace cachalot::openai {
namespace {

using testing::HasSubstr;

class ApiPagesTest : public ApiServerTest {
 protected:
  void SetUp() override { start(); }
};

TEST_F(ApiPagesTest, TheDocumentHasEveryFieldAndNoOther) {
  const json::value schemas = json::parse(api_document("1.2.3")).at("components").at("schemas");
  for (const auto& [endpoint, name] :
       {std::pair(Endpoint::kCompletions, "CompletionRequest"), std::pair(Endpoint::kChats, "ChatRequest")}) {
    std::vector<std::string> known = field_names(endpoint);
    std::vector<std::string> told;
    for (const auto& [key, value] : schemas.at(name).at("properties").as_object()) told.emplace_back(key);
    std::ranges::sort(known);
    std::ranges::sort(told);
    EXPECT_EQ(told, known) << name;
  }
}

// Whatever it names is there: no 404 and no 405.
TEST_F(ApiPagesTest, TheDocumentsAddressesAreServed) {
  service_.answer_with("x");
  const Answer document = ask("GET", "/openapi.json");
  EXPECT_EQ(document.body.at("info").at("version"), "1.2.3");
  for (const auto& [path, operations] : document.body.at("paths").as_object())
    for (const auto& [method, operation] : operations.as_object()) {
      std::string upper(method), address(path);
      std::ranges::transform(upper, upper.begin(), [](char letter) { return static_cast<char>(letter - 'a' + 'A'); });
      if (const size_t id = address.find("{id}"); id != address.npos) address.replace(id, 4, "nano");
      const http::Response response = send(upper, address, upper == "POST" ? "{}" : "");
      EXPECT_NE(response.status, 405) << upper << address;
      EXPECT_LT(response.status, 500) << upper << address;
      if (response.status == 404) {
        EXPECT_THAT(response.body, HasSubstr("response")) << upper << address;
      }
    }
}

TEST_F(ApiPagesTest, ThePageShowsIt) {
  const http::Response page = send("GET", "/docs");
  EXPECT_EQ(page.status, 200);
  EXPECT_EQ(page.headers.find("Content-Security-Policy"), "default-src 'none'; style-src 'self'");
  for (const char* text : {"/v1/chat/completions", "thinking_token_budget", "<a href=\"#ChatRequest\">", "1.2.3"})
    EXPECT_THAT(page.body, HasSubstr(text));
  EXPECT_EQ(send("GET", "/docs/style.css").status, 200);
}

TEST_F(ApiPagesTest, WhatIsNotServedSaysWhy) {
  for (const auto& [path, word] : std::vector<std::pair<std::string, std::string>>{{"/v1/embeddings", "vectors"},
                                                                                   {"/v1/images/generations", "images"},
                                                                                   {"/v1/audio/speech", "audio"},
                                                                                   {"/v1/files", "files"},
                                                                                   {"/v1/batches/x", "batches"}}) {
    const Answer answer = ask("POST", path, "{}");
    EXPECT_EQ(answer.status, 404) << path;
    EXPECT_THAT(answer.error().at("message").as_string().c_str(), HasSubstr(word)) << path;
  }
  const Answer anthropic = ask("POST", "/v1/messages/batches", "{}");
  EXPECT_EQ(anthropic.body.at("type"), "error") << "in the protocol's own form";
  EXPECT_EQ(reason_for_absence("/v1/filesystem"), "");
  EXPECT_EQ(reason_for_absence("/v1/chat/completions"), "");
}

}  // namespace
}  // namespace cachalot::openai
