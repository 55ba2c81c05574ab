#include "text/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <numeric>
#include <random>
#include <thread>

#include "base/file.h"
#include "base/folder_test_util.h"
#include "text/huggingface_test_util.h"

namespace cachalot {

namespace {

namespace json = boost::json;

using testing::ElementsAre;
using testing::HasSubstr;

constexpr TokenId kBos = 496;

std::unique_ptr<Tokenizer> load(const std::string& folder) {
  Result<std::unique_ptr<Tokenizer>> tokenizer = Tokenizer::load(folder);
  if (!tokenizer) throw std::runtime_error(tokenizer.error().message);
  return std::move(*tokenizer);
}

std::vector<TokenId> encode(const Tokenizer& tokenizer, std::string_view text, bool add_bos) {
  return tokenizer.encode(text, add_bos).value();
}

// A model folder with the built-in model's tokenizer.json and other files of a test's own.
class TokenizerFolder : public testing::Test {
 protected:
  void SetUp() override { write("tokenizer.json", *read_file(kNanoFolder + "/tokenizer.json")); }

  void write(const std::string& name, std::string_view text) { ASSERT_TRUE(write_file(folder_ + "/" + name, text)); }
  std::string load_error() const {
    const auto tokenizer = Tokenizer::load(folder_);
    return tokenizer ? "loaded" : tokenizer.error().message;
  }

  const TestFolder test_folder_;
  const std::string& folder_ = test_folder_.path();
};

TEST(Tokenizer, GivesTheIdsOfTheBuiltInModelsQuestions) {
  const auto tokenizer = load(kNanoFolder);
  const auto ids = encode(*tokenizer,
                          "<｜begin▁of▁sentence｜><｜User｜>Which one is larger? 3.8 or "
                          "3.11<｜Assistant｜><think>\n",
                          false);
  EXPECT_THAT(ids, ElementsAre(kBos, 499, 325, 72, 66, 71, 430, 286, 451, 30, 220, 18, 13, 23, 291, 220, 18, 13, 16, 16,
                               500, 501, 198));
}

TEST(Tokenizer, AddsExactlyOneBeginOfSequenceToken) {
  const auto tokenizer = load(kNanoFolder);
  EXPECT_TRUE(tokenizer->add_bos_token());
  EXPECT_THAT(encode(*tokenizer, "", true), ElementsAre(kBos));
  EXPECT_THAT(encode(*tokenizer, "3", true), ElementsAre(kBos, 18));
  EXPECT_THAT(encode(*tokenizer, "3", false), ElementsAre(18));
  EXPECT_THAT(encode(*tokenizer, "<｜begin▁of▁sentence｜>3", true), ElementsAre(kBos, 18));
}

TEST(Tokenizer, KnowsItsTokens) {
  const auto tokenizer = load(kNanoFolder);
  EXPECT_EQ(tokenizer->bos_token(), "<｜begin▁of▁sentence｜>");
  EXPECT_EQ(tokenizer->eos_token(), "<｜end▁of▁sentence｜>");
  EXPECT_EQ(tokenizer->vocab_size(), 512);
  EXPECT_EQ(tokenizer->token_id("<｜end▁of▁sentence｜>"), 497);
  EXPECT_EQ(tokenizer->token_id("3"), 18);
  EXPECT_EQ(tokenizer->token_id("no such token"), std::nullopt);
  EXPECT_TRUE(tokenizer->is_special(497));
  EXPECT_FALSE(tokenizer->is_special(501)) << "<think> is added, not special";
  EXPECT_FALSE(tokenizer->is_special(-1));
  EXPECT_FALSE(tokenizer->is_special(512));
  EXPECT_EQ(tokenizer->token_bytes(497, false), "<｜end▁of▁sentence｜>");
  EXPECT_EQ(tokenizer->token_bytes(497, true), "");
  EXPECT_EQ(tokenizer->token_bytes(220, true), " ") << "spelled Ġ in the file";
  EXPECT_EQ(tokenizer->token_bytes(512, true), "");
}

TEST(Tokenizer, ItsFirstTokensAreTheBytes) {
  const auto tokenizer = load(kNanoFolder);
  std::string bytes, expected(256, '\0');
  for (TokenId id = 0; id < 256; ++id) bytes += tokenizer->token_bytes(id, false);
  std::iota(expected.begin(), expected.end(), '\0');
  std::ranges::sort(bytes, {}, [](char byte) { return static_cast<unsigned char>(byte); });
  EXPECT_EQ(bytes, expected);
}

TEST(Tokenizer, TextThatIsNotUtf8IsRefused) {
  const auto ids = load(kNanoFolder)->encode("ab\xFFz", false);
  ASSERT_FALSE(ids);
  EXPECT_EQ(ids.error().code, ErrorCode::kInvalidArgument);
  EXPECT_THAT(ids.error().message, HasSubstr("UTF-8 at byte 2"));
}

TEST(Tokenizer, ManyThreadsEncodeAtOnce) {
  const auto tokenizer = load(kDeepseekFolder);
  const std::vector<json::object> rows = read_fixture("strings");
  std::vector<int> num_wrong(4, 0);
  {
    std::vector<std::jthread> threads;
    for (int thread = 0; thread < 4; ++thread) {
      threads.emplace_back([&, thread] {
        for (size_t index = thread; index < rows.size(); index += 8) {
          num_wrong[thread] += tokenizer->encode(text_of(rows[index], "text"), false) != ids_of(rows[index]);
        }
      });
    }
  }
  EXPECT_THAT(num_wrong, testing::Each(0));
}

// Texts that are one piece for the pre-tokenizer, or that its patterns read over again: 400 KB take about 0.1 s each. A
// quadratic step would take minutes.
TEST(Tokenizer, LongStringsWithoutASpaceTakeLinearTime) {
  const auto tokenizer = load(kDeepseekFolder);
  constexpr size_t kSize = 400'000;
  std::vector<std::string> texts = {std::string(kSize, 'a'), std::string(kSize, ' ') + "x", std::string(kSize, '\n'),
                                    std::string(kSize, '7'), std::string(kSize, '='),       std::string(kSize, '\0')};
  for (const std::string_view piece : {"acgtta", "漢", "e\u0301", "   \n", "👨‍👩‍👧‍👦"}) {
    for (std::string& text = texts.emplace_back(); text.size() < kSize;) text += piece;
  }
  for (const std::string& text : texts) {
    const auto start = std::chrono::steady_clock::now();
    const std::vector<TokenId> ids = encode(*tokenizer, text, false);
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(20)) << text.substr(0, 12);
    EXPECT_EQ(tokenizer->decode(ids, false), text);
  }
}

TEST_F(TokenizerFolder, AddBosTokenDecides) {
  for (const bool add : {true, false}) {
    write("tokenizer_config.json",
          std::string(R"({"bos_token": "<｜begin▁of▁sentence｜>", "add_bos_token": )") + (add ? "true}" : "false}"));
    const auto tokenizer = load(folder_);
    EXPECT_EQ(encode(*tokenizer, "3", true).size(), add ? 2u : 1u);
  }
}

TEST_F(TokenizerFolder, WithoutAddBosTokenThePostProcessorDecides) {
  write("tokenizer_config.json", R"({"bos_token": {"content": "<｜begin▁of▁sentence｜>"}})");
  EXPECT_FALSE(load(folder_)->add_bos_token()) << "a ByteLevel post-processor adds nothing";
  json::value tokenizer_json = json::parse(*read_file(folder_ + "/tokenizer.json"));
  tokenizer_json.as_object()["post_processor"] = json::parse(R"({
    "type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "bos", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
    "special_tokens": {"bos": {"id": "bos", "ids": [496], "tokens": ["<｜begin▁of▁sentence｜>"]}}})");
  write("tokenizer.json", json::serialize(tokenizer_json));
  EXPECT_THAT(encode(*load(folder_), "3", true), ElementsAre(kBos, 18));
  EXPECT_THAT(encode(*load(folder_), "3", false), ElementsAre(18));
}

TEST_F(TokenizerFolder, WithoutTokenizerConfigNothingIsAdded) {
  EXPECT_THAT(encode(*load(folder_), "3", true), ElementsAre(18));
}

TEST_F(TokenizerFolder, ABeginOfSequenceTokenThatIsUnknownIsAnError) {
  write("tokenizer_config.json", R"({"bos_token": "<s>", "add_bos_token": true})");
  EXPECT_THAT(load_error(), AllOf(HasSubstr("tokenizer_config.json"), HasSubstr("<s>")));
}

TEST_F(TokenizerFolder, AFolderWithOnlyTokenizerModelIsRefusedWithWhatWouldHelp) {
  std::filesystem::remove(folder_ + "/tokenizer.json");
  write("tokenizer.model", "\n");
  const auto tokenizer = Tokenizer::load(folder_);
  ASSERT_FALSE(tokenizer);
  EXPECT_EQ(tokenizer.error().code, ErrorCode::kUnsupported);
  EXPECT_THAT(tokenizer.error().message, AllOf(HasSubstr("tokenizer.model"), HasSubstr("tokenizer.json")));
}

TEST_F(TokenizerFolder, AFolderWithoutATokenizerSaysWhichFileIsMissing) {
  std::filesystem::remove(folder_ + "/tokenizer.json");
  EXPECT_THAT(load_error(), HasSubstr(folder_ + "/tokenizer.json"));
}

TEST_F(TokenizerFolder, ABrokenTokenizerFileIsNamed) {
  write("tokenizer.json", "{\"version\": ");
  EXPECT_THAT(load_error(), HasSubstr(folder_ + "/tokenizer.json: "));
  write("tokenizer.json", *read_file(kNanoFolder + "/tokenizer.json"));
  write("tokenizer_config.json", "{");
  EXPECT_THAT(load_error(), HasSubstr("tokenizer_config.json: no valid JSON at line 1, column 2"));
  write("tokenizer_config.json", R"({"add_bos_token": "yes"})");
  EXPECT_THAT(load_error(), HasSubstr("add_bos_token is \"yes\""));
}

TEST_F(TokenizerFolder, AnotherDecoderThanByteLevelIsRefused) {
  json::value tokenizer_json = json::parse(*read_file(folder_ + "/tokenizer.json"));
  tokenizer_json.as_object()["decoder"] = {{"type", "Fuse"}};
  write("tokenizer.json", json::serialize(tokenizer_json));
  EXPECT_THAT(load_error(), HasSubstr("ByteLevel"));
}

TEST_F(TokenizerFolder, IdsThatNoModelHasAreRefusedWithTheirToken) {
  const auto with = [&](auto change) {
    json::value tokenizer_json = json::parse(*read_file(kNanoFolder + "/tokenizer.json"));
    change(tokenizer_json.as_object());
    write("tokenizer.json", json::serialize(tokenizer_json));
    const auto tokenizer = Tokenizer::load(folder_, 512);
    return tokenizer ? "no error" : tokenizer.error().message;
  };
  const auto vocab = [](json::object& root) -> json::object& { return root["model"].as_object()["vocab"].as_object(); };
  EXPECT_EQ(with([](json::object&) {}), "no error");
  for (const int64_t id : {512L, 600L, 2147483647L, 4294967295L})
    EXPECT_THAT(with([&](json::object& root) { vocab(root)["Look"] = id; }),
                AllOf(HasSubstr(folder_ + "/tokenizer.json: "),
                      HasSubstr("the token \"Look\" has the id " + std::to_string(id)), HasSubstr("512")));
  EXPECT_THAT(with([&](json::object& root) { vocab(root)["Look"] = 18; }), HasSubstr("have the same id, 18"));
  EXPECT_THAT(with([&](json::object& root) { vocab(root)["Look"] = -1; }), HasSubstr("tokenizer.json: "));
  EXPECT_THAT(with([&](json::object& root) { vocab(root)["Look"] = 4294967296; }), HasSubstr("tokenizer.json: "));
  EXPECT_THAT(with([&](json::object& root) {
                root["added_tokens"].as_array().push_back({{"id", 4000000000},
                                                           {"content", "<far>"},
                                                           {"single_word", false},
                                                           {"lstrip", false},
                                                           {"rstrip", false},
                                                           {"normalized", false},
                                                           {"special", true}});
              }),
              HasSubstr("tokenizer.json: "));
  EXPECT_THAT(with([&](json::object& root) {
                json::array& merges = root["model"].as_object()["merges"].as_array();
                if (merges[0].is_array()) {
                  merges.push_back(json::array{"Lo", "xyz"});
                } else {
                  merges.push_back("Lo xyz");
                }
              }),
              AllOf(HasSubstr("tokenizer.json: "), HasSubstr("out of vocabulary")));
  EXPECT_THAT(with([&](json::object& root) {
                root["model"] = {{"type", "WordLevel"}, {"vocab", {{"a", 0}}}, {"unk_token", "a"}};
              }),
              HasSubstr("not BPE"));
}

TEST_F(TokenizerFolder, IdsThatNoTokenHasAreToldOnce) {
  json::value tokenizer_json = json::parse(*read_file(folder_ + "/tokenizer.json"));
  json::object& vocab = tokenizer_json.as_object()["model"].as_object()["vocab"].as_object();
  EXPECT_TRUE(load(folder_)->notes().empty());
  std::string hole;
  for (const auto& [token, id] : vocab)
    if (id == 300) hole = token;
  vocab.erase(hole);
  tokenizer_json.as_object()["model"].as_object()["merges"] = json::array();
  write("tokenizer.json", json::serialize(tokenizer_json));
  EXPECT_THAT(load_error(), HasSubstr("the added token"));  // their ids would shift
  for (const json::value& added : tokenizer_json.at("added_tokens").as_array())
    vocab[added.at("content").as_string()] = added.at("id");
  write("tokenizer.json", json::serialize(tokenizer_json));
  EXPECT_THAT(load(folder_)->notes(),
              ElementsAre(HasSubstr("1 ids below its largest (511) are no token, the first is 300")));
}

TEST_F(TokenizerFolder, WhatStandsInATokenizersPlaceIsNamed) {
  write("tokenizer.json", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 7847602\n");
  EXPECT_THAT(load_error(), AllOf(HasSubstr(folder_ + "/tokenizer.json"), HasSubstr("git lfs pull")));
  write("tokenizer.json", "<!doctype html>\n<html>");
  EXPECT_THAT(load_error(), HasSubstr("a web page"));
  write("tokenizer.json", "{\"a\": 1,\n \"a\": 2}");
  EXPECT_THAT(load_error(), HasSubstr("stands twice in one object, again at line 2"));
  write("tokenizer.json", "\xef\xbb\xbf" + *read_file(kNanoFolder + "/tokenizer.json"));
  EXPECT_EQ(load_error(), "loaded");
}

struct Texts {
  explicit Texts(const std::string& folder) : tokenizer(Tokenizer::load(folder).value()), bounds(*tokenizer) {}
  std::unique_ptr<Tokenizer> tokenizer;
  TextBounds bounds;
};

TEST(TextBounds, NoTextHasFewerTokensThanTheBound) {
  for (const std::string& folder : {kDeepseekFolder, kNanoFolder}) {
    const Texts texts(folder);
    for (const auto& row : read_fixture("strings")) {
      const std::string text = text_of(row, "text");
      EXPECT_LE(texts.bounds.least_num_tokens(text),
                static_cast<int64_t>(texts.tokenizer->encode(text, false)->size()));
    }
    EXPECT_EQ(texts.bounds.least_num_tokens(""), 0);
  }
}

TEST(TextBounds, HopelesslyLongTextsAreKnownWithoutBeingRead) {
  const Texts texts(kDeepseekFolder);
  // Three digits a token at most; a run of spaces is one token up to its longest.
  EXPECT_GE(texts.bounds.least_num_tokens(std::string(30'000'000, '7')), 10'000'000);
  EXPECT_GE(texts.bounds.least_num_tokens(std::string(10'001'000, ' ')), 10'000);
}

TEST(TextBounds, PiecesGiveTheTokensOfTheWhole) {
  std::mt19937 random(7);
  for (const std::string& folder : {kDeepseekFolder, kNanoFolder}) {
    const Texts texts(folder);
    std::string text;
    const auto rows = read_fixture("strings");
    while (text.size() < 400'000) {
      text += text_of(rows[random() % rows.size()], "text");
      text += std::array{"\n", "\n\n", "\r\n", "\n1", "\na", " ", ""}[random() % 7];
    }
    EXPECT_EQ(*texts.bounds.encode(text, true), *texts.tokenizer->encode(text, true));
  }
}

}  // namespace

}  // namespace cachalot
