// Kimi's tiktoken.model, on a small one that was made for tests: cases.json holds what the `tiktoken` package makes of
// its texts.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>

#include "base/file.h"
#include "base/folder_test_util.h"
#include "config/json.h"
#include "text/answer_text.h"
#include "text/grammar.h"
#include "text/huggingface_test_util.h"

namespace cachalot {
namespace {

namespace json = boost::json;

using testing::ElementsAre;
using testing::HasSubstr;

const std::string kKimiFolder = CACHALOT_SOURCE_DIR "/tests/data/tokenizers/kimi-synthetic";
constexpr int kNumRanks = 2304;
constexpr TokenId kEos = 2305, kImEnd = 2306, kImUser = 2307, kThink = 2326;

class TiktokenTest : public testing::Test {
 protected:
  static std::unique_ptr<Tokenizer> load(const std::string& folder, int vocab_size = kMaxVocabSize) {
    auto tokenizer = Tokenizer::load(folder, vocab_size);
    if (!tokenizer) throw std::runtime_error(tokenizer.error().message);
    return std::move(*tokenizer);
  }
  void write(const std::string& name, std::string_view text) { ASSERT_TRUE(write_file(folder_.path(name), text)); }
  std::string load_error(int vocab_size = kMaxVocabSize) const {
    const auto tokenizer = Tokenizer::load(folder_.path(), vocab_size);
    return tokenizer ? "loaded" : tokenizer.error().message;
  }
  std::vector<TokenId> encode(std::string_view text) const { return tokenizer_->encode(text, true).value(); }

  const TestFolder folder_;
  const std::string model_ = *read_file(kKimiFolder + "/tiktoken.model");
  const std::string config_ = *read_file(kKimiFolder + "/tokenizer_config.json");
  const std::unique_ptr<Tokenizer> tokenizer_ = load(kKimiFolder);
};

TEST_F(TiktokenTest, TextsHaveTheIdsOfTheTiktokenPackageAndComeBackWholeAndTokenByToken) {
  const json::value cases = json::parse(*read_file(kKimiFolder + "/cases.json"));
  for (const json::value& row : cases.at("cases").as_array()) {
    const std::string text(row.at("text").as_string());
    const auto ids = json::value_to<std::vector<TokenId>>(row.at("ids"));
    EXPECT_EQ(encode(text), ids) << text;
    EXPECT_EQ(tokenizer_->decode(ids, false), text);
    StreamingDetokenizer detokenizer(*tokenizer_, {}, false, false);
    std::string streamed;
    for (const TokenId id : ids) streamed += detokenizer.add(id);
    EXPECT_EQ(streamed + detokenizer.finish(), text);
  }
}

TEST_F(TiktokenTest, KnowsItsNamedAndItsReservedTokens) {
  EXPECT_EQ(tokenizer_->vocab_size(), kNumRanks + 256);
  EXPECT_EQ(tokenizer_->token_id("<|im_end|>"), kImEnd);
  EXPECT_EQ(tokenizer_->token_id("<|reserved_token_2309|>"), 2309);
  EXPECT_EQ(tokenizer_->token_bytes(2309, false), "<|reserved_token_2309|>");
  EXPECT_EQ(tokenizer_->token_id("a"), 64);
  EXPECT_TRUE(tokenizer_->is_special(kImEnd));
  EXPECT_FALSE(tokenizer_->is_special(kThink));
  EXPECT_FALSE(tokenizer_->is_special(64));
  EXPECT_THAT(encode("a<|im_user|>"), ElementsAre(64, kImUser)) << "no begin-of-sequence token is added";
  EXPECT_EQ(tokenizer_->decode(std::vector<TokenId>{64, kImUser, kThink}, true), "a<think>");
}

// config.json names [EOS] alone, and whether a file names <|im_end|> is not to matter.
TEST_F(TiktokenTest, ATurnEndsAtItsMark) {
  EXPECT_THAT(tokenizer_->turn_end_ids(), ElementsAre(kImEnd));
  EXPECT_THAT(load(kDeepseekFolder)->turn_end_ids(), ElementsAre());
}

TEST_F(TiktokenTest, TagsOfThoughtsAreTextWhateverTheirFlagsSay) {
  json::value config = json::parse(config_);
  config.at("added_tokens_decoder").at("2326").as_object()["special"] = true;
  write("tiktoken.model", model_);
  write("tokenizer_config.json", json_text(config));
  const auto tokenizer = load(folder_.path());
  EXPECT_FALSE(tokenizer->is_special(kThink));
  EXPECT_EQ(tokenizer->token_bytes(kThink, true), "<think>");
}

std::string repeated(std::string_view text, size_t times) {
  std::string all;
  for (size_t i = 0; i < times; ++i) all += text;
  return all;
}

// As Kimi's code cuts them: every 400,000 characters, and where 25,000 blanks or others stand in a row.
TEST_F(TiktokenTest, LongTextsAreCutAsKimisCodeCutsThem) {
  const auto joined = [&](std::initializer_list<std::string> pieces) {
    std::vector<TokenId> all;
    for (const std::string& piece : pieces) std::ranges::copy(encode(piece), std::back_inserter(all));
    return all;
  };
  const std::string run = repeated("abc", 8333) + "a", rest = repeated("bca", 100);  // 25,000 and 300
  EXPECT_EQ(encode(run + rest), joined({run, rest}));
  EXPECT_EQ(encode(" " + run + rest), joined({" " + run, rest}));
  EXPECT_EQ(encode(std::string(25'001, ' ')), joined({std::string(25'000, ' '), " "}));
  const std::string words = repeated("h\u00e9llo, ", 57'142) + "hello", more = "hello<|im_end|>";  // 399,999 and others
  EXPECT_EQ(encode(words + "|" + more), joined({words + "|", more}));
  EXPECT_EQ(encode(words + "<|im_end|>"), joined({words + "<", "|im_end|>"}));
  EXPECT_EQ(*TextBounds(*tokenizer_).encode(words + "|\nhello" + more, true), encode(words + "|\nhello" + more));
}

TEST_F(TiktokenTest, AnyTextTakesLinearTime) {
  const auto begin = std::chrono::steady_clock::now();
  for (const std::string_view part : {"a", " ", "\n ", "\u4e2d", "\U0001F600", "<|im_", "1", "Aa'", "\u0301"})
    EXPECT_GT(encode(repeated(part, 400'000 / part.size())).size(), 10u);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(20));
}

TEST_F(TiktokenTest, GrammarsKnowItsTokens) {
  const auto grammars = Grammars::create(*tokenizer_, tokenizer_->vocab_size(), {&kImEnd, 1}).value();
  EXPECT_EQ(grammars->lark_of("a<|im_user|>"), "\"a\" <[2307]>");
  const auto matcher = grammars->compile({GrammarText::Kind::kRegex, "[0-9]+ \u4e2d"}).value();
  for (const TokenId token : encode("12 \u4e2d")) {
    ASSERT_TRUE(*matcher->allows_any({&token, 1}, tokenizer_->vocab_size()));
    ASSERT_TRUE(matcher->accept(token));
  }
  EXPECT_TRUE(*matcher->allows_any({&kImEnd, 1}, tokenizer_->vocab_size()));
  EXPECT_FALSE(*matcher->allows_any({&kEos, 1}, tokenizer_->vocab_size()));
}

TEST_F(TiktokenTest, WithoutNamesAllSpecialTokensAreReserved) {
  write("tiktoken.model", model_);
  const auto tokenizer = load(folder_.path());
  EXPECT_EQ(tokenizer->token_id("<|reserved_token_2306|>"), 2306);
  EXPECT_EQ(tokenizer->token_id("<|im_end|>"), std::nullopt);
}

TEST_F(TiktokenTest, ATokenizerJsonGoesFirst) {
  write("tiktoken.model", "nonsense");
  write("tokenizer.json", *read_file(kNanoFolder + "/tokenizer.json"));
  EXPECT_EQ(load(folder_.path())->vocab_size(), 512);
  write("tokenizer_config.json", R"({"added_tokens_decoder": {"x": {"content": "<a>"}}})");
  EXPECT_EQ(load(folder_.path())->vocab_size(), 512) << "the names of special tokens play no part then";
}

TEST_F(TiktokenTest, AFolderWithoutItIsToldWhatItAsksFor) {
  write("tokenizer_config.json", config_);
  EXPECT_THAT(load_error(), HasSubstr(": neither tiktoken.model, which tokenizer_config.json asks for (tokenizer_class "
                                      "TikTokenTokenizer), nor tokenizer.json is there; is the download unfinished?"));
}

TEST_F(TiktokenTest, DamagedFilesAreNamedWithTheLine) {
  const size_t second_line = model_.find('\n') + 1;
  const std::string begin = model_.substr(0, second_line), rest = model_.substr(second_line);
  for (const auto& [text, what] : {
           std::pair{begin + "?? 1\n" + rest, "line 2 is \"?? 1\"; a line must be base64 of a token's bytes"},
           std::pair{begin + "IQ==\n" + rest, "line 2 is \"IQ==\""},
           std::pair{begin + "IQ== 1 2\n" + rest, "line 2 is \"IQ== 1 2\""},
           std::pair{begin + "IQ== -1\n" + rest, "line 2 is \"IQ== -1\""},
           std::pair{begin + "IQ== 99999999\n" + rest, "line 2 has the rank 99999999; 2305 tokens must have the ranks"},
           std::pair{begin + rest + begin, "line 2305 has the rank 0, which another line has, too"},
           std::pair{begin + rest + "IQ== 2304\n", "line 2305 has the token of line 1"},
           std::pair{rest, "has the rank 2303"},
           std::pair{std::string("IQ== 0\n"), "no token is the single byte 0x00"},
           std::pair{std::string("version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 2\n"),
                     "git-lfs pointer"},
           std::pair{std::string(), "it is empty"},
           std::pair{std::string("\n\n \n"), "nothing but white space"},
       }) {
    write("tiktoken.model", text);
    EXPECT_THAT(load_error(), AllOf(HasSubstr(folder_.path("tiktoken.model")), HasSubstr(what)));
  }
}

TEST_F(TiktokenTest, SpecialTokensThatCannotBeAreRefused) {
  write("tiktoken.model", model_);
  for (const auto& [config, what] : {
           std::pair{R"({"added_tokens_decoder": {"2304": {"content": "<a>"}, "2305": {"content": "<a>"}}})",
                     "id 2305, \"<a>\", is empty or another's name"},
           std::pair{R"({"added_tokens_decoder": [1]})", "added_tokens_decoder is [1]; it must be an object"},
           std::pair{R"({"added_tokens_decoder": {"x": {"content": "<a>"}}})", "added_tokens_decoder holds 'x'"},
           std::pair{R"({"added_tokens_decoder": {"2304": "<a>"}})", "added_tokens_decoder holds '2304'"},
           std::pair{R"({"tokenizer_class": "QWenTokenizer"})", "read as Kimi's TikTokenTokenizer does"},
       }) {
    write("tokenizer_config.json", config);
    EXPECT_THAT(load_error(), HasSubstr(what));
  }
  write("tokenizer_config.json", config_);
  EXPECT_THAT(load_error(2327), HasSubstr("\"</think>\" has the id 2327; ids must be below"));
  EXPECT_THAT(load_error(100), HasSubstr("it has 2304 ranks"));
  write("tokenizer_config.json", "{}");
  EXPECT_EQ(load(folder_.path(), 2310)->vocab_size(), 2310) << "reserved tokens that the model has not are left out";
}

}  // namespace
}  // namespace cachalot
