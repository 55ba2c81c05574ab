#include "text/grammar.h"

#include <gtest/gtest.h>

#include <ctime>
#include <future>
#include <random>

#include "config/json.h"
#include "text/thought_budget.h"
#include "text/tool_call_grammar.h"

namespace cachalot {
namespace {

class GrammarTest : public testing::Test {
 protected:
  std::unique_ptr<GrammarMatcher> compile(GrammarText::Kind kind, const std::string& text) const {
    auto matcher = grammars_->compile({kind, text});
    EXPECT_TRUE(matcher) << matcher.error().message;
    return matcher ? std::move(*matcher) : nullptr;
  }
  std::vector<TokenId> tokens_of(std::string_view text) const { return *tokenizer_->encode(text, false); }
  bool allows(GrammarMatcher& matcher, TokenId token) const { return *matcher.allows_any({&token, 1}, vocab_size_); }
  bool takes(const GrammarMatcher& start, const std::vector<TokenId>& tokens) const {
    const auto matcher = start.copy();
    for (const TokenId token : tokens)
      if (!allows(*matcher, token) || !matcher->accept(token)) return false;
    return allows(*matcher, end_);
  }
  bool takes(const GrammarMatcher& start, std::string_view text) const { return takes(start, tokens_of(text)); }

  std::unique_ptr<Tokenizer> tokenizer_ = Tokenizer::load(CACHALOT_SOURCE_DIR "/models/nano").value();
  const int vocab_size_ = tokenizer_->vocab_size() + 40;  // a model may have ids that stand for nothing
  const TokenId end_ = *tokenizer_->token_id(tokenizer_->eos_token());
  std::unique_ptr<Grammars> grammars_ = Grammars::create(*tokenizer_, vocab_size_, {&end_, 1}).value();
};

// What the mask says of each token is what an expression says of the text with it.
TEST_F(GrammarTest, AMaskIsWhatMayComeNext) {
  const auto start = compile(GrammarText::Kind::kRegex, "[a-c]+( the)?[0-9]{2}");
  const auto begins = [](std::string_view text) {
    size_t i = 0;
    while (i < text.size() && text[i] >= 'a' && text[i] <= 'c') ++i;
    std::string_view rest = text.substr(i);
    if (rest.empty()) return true;
    if (i == 0) return false;
    for (const std::string_view word : {std::string_view(" the"), std::string_view("")}) {
      if (word.starts_with(rest)) return true;
      if (!rest.starts_with(word)) continue;
      const std::string_view digits = rest.substr(word.size());
      if (digits.size() <= 2 && digits.find_first_not_of("0123456789") == digits.npos) return true;
    }
    return false;
  };
  for (const std::string text : {"", "a", "abca", "b t", "c the", "cab7", "a the4", "a42"}) {
    const auto matcher = start->copy();
    for (const TokenId token : tokens_of(text)) ASSERT_TRUE(matcher->accept(token)) << text;
    std::vector<uint32_t> mask(static_cast<size_t>(vocab_size_ + 31) / 32, ~0u);
    ASSERT_TRUE(matcher->write_mask(mask));
    for (TokenId token = 0; token < static_cast<TokenId>(mask.size() * 32); ++token) {
      const bool is_allowed = mask[static_cast<size_t>(token) / 32] >> (token % 32) & 1;
      const std::string bytes =
          token < tokenizer_->vocab_size() ? std::string(tokenizer_->token_bytes(token, false)) : "";
      const bool is_text = !bytes.empty() && !tokenizer_->is_special(token);
      const bool is_whole = text == "a42";
      EXPECT_EQ(is_allowed, token == end_ ? is_whole : is_text && begins(text + bytes)) << text << " + " << bytes;
    }
  }
}

TEST_F(GrammarTest, CopiesAreApart) {
  const auto start = compile(GrammarText::Kind::kRegex, "ab|cd");
  const auto one = start->copy(), other = start->copy();
  ASSERT_TRUE(one->accept(tokens_of("a").front()));
  EXPECT_TRUE(takes(*one, "b"));
  EXPECT_FALSE(takes(*one, "d"));
  EXPECT_TRUE(takes(*other, "cd"));
  EXPECT_TRUE(takes(*start, "ab"));
}

TEST_F(GrammarTest, AMarkIsNoText) {
  const auto any = compile(GrammarText::Kind::kRegex, "(?s:.*)");
  EXPECT_TRUE(takes(*any, "a\n{}"));
  EXPECT_FALSE(takes(*any, {*tokenizer_->token_id("<｜User｜>")}));
  const auto mark = compile(GrammarText::Kind::kLark, "start: \"a\" " + grammars_->lark_of("<｜User｜>b"));
  EXPECT_TRUE(takes(*mark, "a<｜User｜>b"));
}

TEST_F(GrammarTest, WhatIsNoGrammarIsAnError) {
  for (const auto& [kind, text] : std::vector<std::pair<GrammarText::Kind, std::string>>{
           {GrammarText::Kind::kRegex, "("},
           {GrammarText::Kind::kRegex, "a{1,100000000}{1,100000000}b("},
           {GrammarText::Kind::kLark, "start: x"},
           {GrammarText::Kind::kLark, std::string("start: \"\0", 9)},
           {GrammarText::Kind::kJsonSchema, "{"},
           {GrammarText::Kind::kJsonSchema, R"({"type":"nothing"})"},
           {GrammarText::Kind::kJsonSchema, R"({"$ref":"https://example.com/schema"})"}}) {
    const auto matcher = grammars_->compile({kind, text});
    ASSERT_FALSE(matcher) << text;
    EXPECT_EQ(matcher.error().code, ErrorCode::kInvalidArgument) << text;
    EXPECT_FALSE(matcher.error().message.empty());
  }
}

class ConstraintTest : public GrammarTest {
 protected:
  std::unique_ptr<GrammarConstraint> constraint(const char* regex, Thought thought) {
    return std::make_unique<GrammarConstraint>(compile(GrammarText::Kind::kRegex, regex), std::move(thought),
                                               std::vector{end_}, vocab_size_, workers_,
                                               std::make_shared<MaskBudget>(1));
  }
  bool takes_all(TokenConstraint& constraint, std::string_view text) const {
    std::vector<TokenId> tokens = tokens_of(text);
    tokens.push_back(end_);
    for (const TokenId token : tokens) {
      std::vector<uint32_t> mask(static_cast<size_t>(vocab_size_ + 31) / 32, ~0u);
      EXPECT_TRUE(constraint.fill_mask(mask));
      if (!(mask[static_cast<size_t>(token) / 32] >> (token % 32) & 1)) return false;
      EXPECT_TRUE(constraint.accept(token));
    }
    return true;
  }
  Thought thought(bool is_open) const {
    return {.begin = tokenizer_->token_id("<think>"),
            .end = tokenizer_->token_id("</think>"),
            .is_open = is_open,
            .blanks = {tokens_of("\n").front(), tokens_of("\n\n").front()}};
  }
  std::shared_ptr<MaskWorkers> workers_ = std::make_shared<MaskWorkers>(2);
};

TEST_F(ConstraintTest, HoldsFromTheEndOfTheThoughtOn) {
  for (const char* answer : {"Hm. 7?</think>42", "</think>42", "Hm.</think>\n42", "Hm.</think>\n\n42"})
    EXPECT_TRUE(takes_all(*constraint("[0-9]+", thought(true)), answer)) << answer;
  for (const char* answer :
       {"42", "Hm.</think>Hm.", "Hm.</think>", "Hm.</think>\n\n\n\n\n\n42", "Hm.</think>\n4\n2", "Hm."})
    EXPECT_FALSE(takes_all(*constraint("[0-9]+", thought(true)), answer)) << answer;
  for (const char* answer : {"42", "<think>Hm.</think>42"})
    EXPECT_TRUE(takes_all(*constraint("[0-9]+", thought(false)), answer)) << answer;
  for (const char* answer : {"4<think>Hm.</think>2", "<think>42", "Hm.</think>42", "\n42"})
    EXPECT_FALSE(takes_all(*constraint("[0-9]+", thought(false)), answer)) << answer;
  EXPECT_TRUE(takes_all(*constraint("\n\n\n42", thought(true)), "Hm.</think>\n\n\n42")) << "its own white space";
  EXPECT_FALSE(takes_all(*constraint("[0-9]+", {}), "<think>Hm.</think>42"));
}

// Kimi K2-Thinking calls from within a thought, whose tag it then leaves out.
TEST_F(ConstraintTest, AThoughtIsOverWhereACallBegins) {
  Thought open = thought(true);
  open.call = tokens_of("#").front();
  EXPECT_TRUE(takes_all(*constraint("#[0-9]+", open), "Hm.#42"));
  EXPECT_TRUE(takes_all(*constraint("#[0-9]+", open), "Hm.</think>#42"));
  EXPECT_FALSE(takes_all(*constraint("#[0-9]+", open), "Hm.#4x"));
  EXPECT_FALSE(takes_all(*constraint("#[0-9]+", thought(true)), "Hm.#42"));
  ThoughtBudget budget(open, 3, constraint("#[0-9]+", open));
  EXPECT_TRUE(takes_all(budget, "Hm#42424242"));
}

// A round of several tokens is given up, and another answer takes its place: the masks are those of an answer that
// never went the other way.
TEST_F(ConstraintTest, ARollbackLeavesNothingOfWhatWasGivenUp) {
  std::mt19937 random(3);
  const std::vector<TokenId> likely{*tokenizer_->token_id("</think>"), tokens_of("\n").front(), tokens_of("a").front()};
  const auto mask_of = [&](TokenConstraint& constraint) {
    std::vector<uint32_t> mask(static_cast<size_t>(vocab_size_ + 31) / 32, ~0u);
    EXPECT_TRUE(constraint.fill_mask(mask));
    return mask;
  };
  const auto pick = [&](std::span<const uint32_t> mask) {
    const auto allows = [&](TokenId token) { return (mask[static_cast<size_t>(token) / 32] >> (token % 32) & 1) != 0; };
    if (const TokenId token = likely[random() % likely.size()]; random() % 2 && allows(token)) return token;
    auto token = static_cast<TokenId>(random() % static_cast<unsigned>(vocab_size_));
    while (!allows(token)) token = (token + 1) % vocab_size_;
    return token;
  };
  const auto make = [&](int kind) -> std::unique_ptr<TokenConstraint> {
    auto grammar = constraint("(a[0-9]{3}|b[a-f]{5}\n?)+", kind == 0 ? Thought{} : thought(kind == 1));
    if (kind == 0) return grammar;
    return std::make_unique<ThoughtBudget>(thought(kind == 1), 6, std::move(grammar));
  };
  for (int trial = 0; trial < 24; trial++) {
    const std::unique_ptr<TokenConstraint> held = make(trial % 3);
    std::vector<TokenId> kept;
    for (int round = 0; round < 5; round++) {
      std::vector<TokenId> sampled;
      for (unsigned count = random() % 5; count > 0; count--) {
        const TokenId token = pick(mask_of(*held));
        if (token == end_) break;
        sampled.push_back(token);
        ASSERT_TRUE(held->accept(token));
      }
      if (random() % 2 == 0)
        held->rollback(static_cast<int>(kept.size()));
      else
        kept.insert(kept.end(), sampled.begin(), sampled.end());
      const std::unique_ptr<TokenConstraint> fresh = make(trial % 3);
      for (const TokenId token : kept) ASSERT_TRUE(fresh->accept(token));
      ASSERT_EQ(mask_of(*held), mask_of(*fresh)) << "trial " << trial << ", round " << round;
    }
  }
}

// Whoever writes a grammar to hold others up gets an error for it.
TEST_F(ConstraintTest, HostileGrammarsHaveABudget) {
  std::string optional;
  for (int i = 0; i < 300; ++i) optional += fmt::format("{}\"k{}\":{{\"type\":\"string\"}}", i ? "," : "", i);
  const std::vector<std::pair<GrammarText::Kind, std::string>> hostile = {
      {GrammarText::Kind::kRegex, "(.*a){100}"},
      {GrammarText::Kind::kRegex, "(a|b)*a(a|b){24}"},
      {GrammarText::Kind::kRegex, "((a{0,100}b{0,100}){0,100}c{0,100}){0,100}"},
      {GrammarText::Kind::kLark, "start: a\na: a a | \"x\" | \"\""},
      {GrammarText::Kind::kLark, "start: e\ne: e \"x\" e | e \"x\" | \"x\" e | \"x\""},
      {GrammarText::Kind::kJsonSchema, R"({"type":"object","properties":{)" + optional + "}}"},
      {GrammarText::Kind::kJsonSchema, R"({"type":"string","pattern":"^(a?){50}a{50}$"})"},
  };
  std::mt19937 random(3);
  int num_ended = 0;
  for (const auto& [kind, text] : hostile) {
    GrammarConstraint constraint(compile(kind, text), {}, {end_}, vocab_size_, workers_,
                                 std::make_shared<MaskBudget>(1));
    const std::clock_t begin = std::clock();
    int num_tokens = 0;
    for (; num_tokens < 250; ++num_tokens) {
      std::vector<uint32_t> mask(static_cast<size_t>(vocab_size_ + 31) / 32, ~0u);
      if (const Status status = constraint.fill_mask(mask); !status) {
        EXPECT_EQ(status.error().code, ErrorCode::kInvalidArgument);
        ++num_ended;
        break;
      }
      std::vector<TokenId> allowed;
      for (TokenId token = 0; token < vocab_size_; ++token)
        if (token != end_ && (mask[static_cast<size_t>(token) / 32] >> (token % 32) & 1)) allowed.push_back(token);
      if (allowed.empty() || !constraint.accept(allowed[random() % allowed.size()])) break;
    }
    const std::chrono::duration<double> taken(static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC);
    EXPECT_LT(taken, 2 * MaskBudget::kAtFirst + num_tokens * MaskBudget::kPerToken) << text.substr(0, 80);
  }
  EXPECT_GE(num_ended, 1) << "one of them is ambiguous enough";
}

// Of answers that are gone, and of those whose request has had its time already.
TEST_F(ConstraintTest, MasksThatNobodyCanUseAreNotMade) {
  const std::unique_ptr<GrammarMatcher> matcher = compile(GrammarText::Kind::kRegex, "(.*a){100}");
  const auto cpu_time = [&](std::chrono::nanoseconds taken, bool are_gone) {
    std::promise<void> may_go_on;
    const std::shared_future<void> held(may_go_on.get_future());
    workers_ = std::make_shared<MaskWorkers>(1);
    for (const bool is_slow : {false, true}) workers_->run([held] { held.wait(); }, is_slow);
    const auto budget = std::make_shared<MaskBudget>(100);
    EXPECT_EQ(budget->take(taken), taken.count() == 0);
    std::vector<std::unique_ptr<GrammarConstraint>> all;
    for (int i = 0; i < 100; ++i)
      all.push_back(std::make_unique<GrammarConstraint>(matcher->copy(), Thought(), std::vector{end_}, vocab_size_,
                                                        workers_, budget));
    if (are_gone) all.clear();
    const std::clock_t begin = std::clock();
    may_go_on.set_value();
    for (const auto& constraint : all) {
      std::vector<uint32_t> mask(static_cast<size_t>(vocab_size_ + 31) / 32, ~0u);
      EXPECT_EQ(constraint->fill_mask(mask).has_value(), taken.count() == 0);
    }
    all.clear();
    workers_.reset();  // waits for the rest
    return std::clock() - begin;
  };
  const std::clock_t all = cpu_time({}, false);
  EXPECT_LT(cpu_time({}, true), all / 4);
  EXPECT_LT(cpu_time(std::chrono::hours(1), false), all / 4);
}

TEST_F(ConstraintTest, TellsWhenAMaskIsThere) {
  std::promise<void> may_go_on, woken;
  workers_ = std::make_shared<MaskWorkers>(1);
  workers_->run([&] { may_go_on.get_future().wait(); }, /*is_slow=*/false);
  const std::unique_ptr<GrammarConstraint> waits = constraint("[0-9]+", {});
  int num_calls = 0;
  waits->set_wake([&] {
    num_calls++;
    woken.set_value();
  });
  EXPECT_FALSE(waits->is_ready_by({}));
  EXPECT_FALSE(waits->is_ready_by(std::chrono::steady_clock::now() + std::chrono::milliseconds(1)));
  const std::unique_ptr<GrammarConstraint> thinks = constraint("[0-9]+", thought(true));
  EXPECT_TRUE(thinks->is_ready_by({})) << "of a thought there is no mask";
  // Behind the slow ones nobody waits.
  std::promise<void> slow_may_go_on;
  workers_->run([&] { slow_may_go_on.get_future().wait(); }, /*is_slow=*/true);
  may_go_on.set_value();
  woken.get_future().wait();
  EXPECT_TRUE(waits->is_ready_by({}));
  EXPECT_TRUE(takes_all(*waits, "42"));
  EXPECT_EQ(num_calls, 1) << "once asked, once told";
  slow_may_go_on.set_value();
}

// Answers go while their masks are under way, and masks of many answers do not mix.
TEST_F(ConstraintTest, ManyAtATimeAndSomeThatGo) {
  std::mt19937 random(7);
  std::vector<std::pair<std::unique_ptr<GrammarConstraint>, int>> all;
  for (int i = 0; i < 300; ++i) {
    const int digit = static_cast<int>(random() % 10);
    all.emplace_back(constraint(fmt::format("{}{{3}}", digit).c_str(), {}), digit);
    if (all.size() < 32) continue;
    std::swap(all[random() % all.size()], all.back());
    const std::string answer(3, static_cast<char>('0' + all.back().second));
    if (random() % 2) {
      EXPECT_TRUE(takes_all(*all.back().first, answer));
    }
    all.pop_back();
  }
}

}  // namespace
}  // namespace cachalot
