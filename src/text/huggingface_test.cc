// Equality with HuggingFace's libraries, on everything that tests/tokenizer/make_fixture.py asked them.
#include <gtest/gtest.h>

#include <map>

#include "base/file.h"
#include "text/answer_text.h"
#include "text/chat_template.h"
#include "text/huggingface_test_util.h"
#include "text/tokenizer.h"

namespace cachalot {
namespace {

namespace json = boost::json;

class HuggingFace : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    Result<std::unique_ptr<Tokenizer>> tokenizer = Tokenizer::load(kDeepseekFolder);
    ASSERT_TRUE(tokenizer) << tokenizer.error().message;
    tokenizer_ = tokenizer->release();
    strings_ = new std::vector(read_fixture("strings"));
  }
  static void TearDownTestSuite() {
    delete tokenizer_;
    delete strings_;
  }

  static Tokenizer* tokenizer_;
  static std::vector<json::object>* strings_;
};

Tokenizer* HuggingFace::tokenizer_ = nullptr;
std::vector<json::object>* HuggingFace::strings_ = nullptr;

std::string stream(const Tokenizer& tokenizer, const std::vector<TokenId>& ids, bool skip_special) {
  StreamingDetokenizer detokenizer(tokenizer, {}, skip_special, false);
  std::string text;
  for (const TokenId id : ids) text += detokenizer.add(id);
  return text + detokenizer.finish();
}

TEST_F(HuggingFace, StringsHaveTheSameIds) {
  ASSERT_GE(strings_->size(), 10'000u);
  for (const json::object& row : *strings_) {
    const std::string text = text_of(row, "text");
    const auto ids = tokenizer_->encode(text, false);
    ASSERT_TRUE(ids) << ids.error().message;
    ASSERT_EQ(*ids, ids_of(row)) << testing::PrintToString(text);
  }
}

TEST_F(HuggingFace, StringsComeBackFromTheirIdsWholeAndTokenByToken) {
  for (const json::object& row : *strings_) {
    const std::string text = text_of(row, "text");
    const std::vector<TokenId> ids = ids_of(row);
    ASSERT_EQ(tokenizer_->decode(ids, false), text);
    ASSERT_EQ(stream(*tokenizer_, ids, false), text);
  }
}

TEST_F(HuggingFace, RandomIdsDecodeToTheSameTextWholeAndTokenByToken) {
  int num_invalid = 0;
  for (const json::object& row : read_fixture("decoded")) {
    const std::vector<TokenId> ids = ids_of(row);
    const std::string text = text_of(row, "text"), without_special = text_of(row, "text_without_special");
    num_invalid += text.contains("\uFFFD");
    ASSERT_EQ(tokenizer_->decode(ids, false), text);
    ASSERT_EQ(stream(*tokenizer_, ids, false), text);
    ASSERT_EQ(tokenizer_->decode(ids, true), without_special);
    ASSERT_EQ(stream(*tokenizer_, ids, true), without_special);
  }
  EXPECT_GT(num_invalid, 1000);
}

// As it is found in the fixture: a folder with a template of its own, or a template file.
std::unique_ptr<ChatTemplate> load_template(const std::string& path, const Tokenizer& tokenizer) {
  const std::string full_path = CACHALOT_SOURCE_DIR "/" + path;
  if (!path.ends_with(".jinja")) return *ChatTemplate::load(full_path);
  return *ChatTemplate::from_source(*read_file(full_path), tokenizer.bos_token(), tokenizer.eos_token());
}

TEST_F(HuggingFace, ConversationsRenderToTheSameTextAndIds) {
  std::map<std::string, std::unique_ptr<ChatTemplate>> templates;
  int num_rendered = 0, num_refused = 0;
  for (const json::object& row : read_fixture("chats")) {
    const std::string path = text_of(row, "template"), context = json::serialize(row.at("context"));
    std::unique_ptr<ChatTemplate>& chat_template = templates[path];
    if (!chat_template) chat_template = load_template(path, *tokenizer_);
    const Result<std::string> text = chat_template->render(context);
    if (row.contains("error")) {
      ++num_refused;
      ASSERT_FALSE(text) << path << " " << context << "\nrendered to\n" << *text;
      EXPECT_EQ(text.error().code, ErrorCode::kInvalidArgument);
      EXPECT_TRUE(text.error().message.contains(text_of(row, "error"))) << text.error().message;
      continue;
    }
    ++num_rendered;
    ASSERT_TRUE(text) << path << " " << context << "\n" << text.error().message;
    EXPECT_EQ(*text, text_of(row, "text")) << path << " " << context;
    EXPECT_EQ(tokenizer_->encode(*text, false).value(), ids_of(row));
  }
  EXPECT_GT(num_rendered, 300);
  EXPECT_GT(num_refused, 50);
}

}  // namespace
}  // namespace cachalot
