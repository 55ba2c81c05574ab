#include "calibrate/texts.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/file.h"
#include "base/folder_test_util.h"
#include "text/tokenizer.h"

namespace cachalot {
namespace {

using testing::HasSubstr;
using testing::SizeIs;

const std::string kNano = std::string(CACHALOT_SOURCE_DIR) + "/models/nano";
using Sequences = std::vector<std::vector<TokenId>>;

class CalibrationTexts : public testing::Test {
 protected:
  Result<Sequences> read(const std::string& name, std::string_view text, int64_t most_tokens = 100'000) {
    EXPECT_TRUE(write_file(folder_.path(name), text));
    return read_calibration_texts(folder_.path(name), kNano, config_, most_tokens);
  }
  std::string message(const std::string& name, std::string_view text) {
    const Result<Sequences> sequences = read(name, text);
    return sequences ? "no error" : sequences.error().message;
  }
  std::string text_of(const std::vector<TokenId>& ids) { return tokenizer_->decode(ids, false); }

  TestFolder folder_;
  ModelConfig config_ = load_model_config(kNano).value();
  std::unique_ptr<Tokenizer> tokenizer_ = Tokenizer::load(kNano, config_.vocab_size).value();
};

TEST_F(CalibrationTexts, LinesOfJsonAreTextsChatsOrIds) {
  const Sequences sequences = read("t.jsonl",
                                   R"({"text": "Is 3 odd?"}
{"messages": [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Hi!"}], "source": "me"}

{"token_ids": [3, 1, 2]})")
                                  .value();
  ASSERT_THAT(sequences, SizeIs(3));
  std::vector<std::string> texts;
  for (const auto& ids : sequences) texts.push_back(text_of(ids));
  EXPECT_THAT(texts, testing::Contains(HasSubstr("Is 3 odd?")));
  EXPECT_THAT(texts, testing::Contains(testing::AllOf(HasSubstr("Hello."), HasSubstr("Hi!"), HasSubstr("User"))));
  EXPECT_THAT(sequences, testing::Contains(std::vector<TokenId>{3, 1, 2}));
}

TEST_F(CalibrationTexts, APlainTextComesInPiecesFromAllOverTheFile) {
  std::string text;
  for (int line = 0; line < 4000; line++) text += fmt::format("{} is a number.\n", line);
  const Sequences all = read("t.txt", text).value();
  EXPECT_GT(all.size(), 10u);
  for (const auto& ids : all) EXPECT_LE(ids.size(), size_t{kSequenceTokens});
  const Sequences some = read("t.txt", text, 2500).value();
  ASSERT_THAT(some, SizeIs(3));
  EXPECT_THAT(some[2], SizeIs(2500 - 2 * kSequenceTokens));
  EXPECT_THAT(text_of(some[0]), HasSubstr("0 is a number.\n1 is"));
  EXPECT_THAT(text_of(some[1]), testing::Not(HasSubstr(" 100 is")));
  EXPECT_EQ(read("t.txt", std::string(100'000, 'a') + "\xff").value().size(), 7u) << "no line ends";
}

TEST_F(CalibrationTexts, ErrorsNameTheFileAndTheLine) {
  EXPECT_THAT(message("t.jsonl", "{\"text\": \"a\"}\n\n{]"), HasSubstr("t.jsonl:3: not JSON: "));
  EXPECT_THAT(message("t.jsonl", "[1]"), HasSubstr("t.jsonl:1: not an object with `messages`, `text` or `token_ids`"));
  EXPECT_THAT(message("t.jsonl", "{\"text\": 1}"), HasSubstr("t.jsonl:1: not an object"));
  EXPECT_THAT(message("t.jsonl", R"({"messages": [{"role": "user"}]})"), HasSubstr("t.jsonl:1: "));
  EXPECT_THAT(message("t.jsonl", R"({"messages": 1})"), HasSubstr("t.jsonl:1: "));
  EXPECT_THAT(message("t.jsonl", R"({"token_ids": [0, 512]})"),
              HasSubstr("512 is no token id; the model has 0 to 511"));
  EXPECT_THAT(message("t.jsonl", R"({"token_ids": ["a"]})"), HasSubstr("t.jsonl:1: `token_ids`: \"a\" is no token id"));
  EXPECT_THAT(message("t.jsonl", "\n\n"), HasSubstr("t.jsonl: there is no text in it to calibrate with"));
  EXPECT_THAT(message("t.txt", ""), HasSubstr("t.txt: there is no text"));
  EXPECT_THAT(read_calibration_texts("/nowhere.txt", kNano, config_, 9).error().message, HasSubstr("/nowhere.txt"));
}

}  // namespace
}  // namespace cachalot
