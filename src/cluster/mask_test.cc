#include "cluster/mask.h"

#include <gtest/gtest.h>

namespace cachalot {
namespace {

TEST(Mask, TakesOutWhatIsKnownWhereverItStands) {
  Mask mask;
  mask.add("sesame");
  mask.add("sesame-open");
  mask.add("abc");  // too short
  EXPECT_EQ(mask.apply("a sesame-open, sesame and abc\nxsesamex"), "a ***, *** and abc\nx***x");
}

TEST(Mask, TakesOutWhatStandsWhereSecretsDo) {
  const Mask mask;
  for (const auto& [text, masked] : {
           std::pair("Authorization: Bearer abc.def-1\n", "Authorization: *** ***\n"),
           std::pair("api-key: [one, two]\n", "api-key: ***\n"),
           std::pair("{\"api_key\": \"one\", \"n\": 1}", "{\"api_key\": ***, \"n\": 1}"),
           std::pair("VLLM_API_KEY=one\nHF_TOKEN='a b'", "VLLM_API_KEY=***\nHF_TOKEN=***"),
           std::pair("serve --api-key one --port 1", "serve --api-key *** --port 1"),
           std::pair("serve --server-api-key=one", "serve --server-api-key=***"),
           std::pair("http://me:pass@host/v1", "http://me:***@host/v1"),
           std::pair("it was sk-0123456789abcdef.", "it was ***."),
           std::pair("password = x", "password = ***"),
       })
    EXPECT_EQ(mask.apply(text), masked);
}

TEST(Mask, LeavesTheRestAsItIs) {
  const Mask mask;
  for (const char* text : {"vllm:prompt_tokens_total{engine=\"0\"} 5\n", "\"first_token_seconds\": {\"bounds\": [1]}",
                           "max_tokens: 16", "max-num-batched-tokens: 2048", "group-secret-file: /etc/cachalot/secret",
                           "key: ~/.ssh/id", "\n\n", "", "the first token came after 3 s"})
    EXPECT_EQ(mask.apply(text), text);
}

TEST(Mask, KnowsNamesOfSecrets) {
  for (const char* name : {"api-key", "server-api-key", "CACHALOT_API_KEY", "HF_TOKEN", "password", "AWS_SECRET"})
    EXPECT_TRUE(is_secret_name(name)) << name;
  for (const char* name : {"max-num-batched-tokens", "group-secret-file", "monkey", "keyboard", "tokens", "UCX_TLS"})
    EXPECT_FALSE(is_secret_name(name)) << name;
}

}  // namespace
}  // namespace cachalot
