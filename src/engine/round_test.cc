#include "engine/round.h"

#include <gmock/gmock.h>

#include <functional>
#include <tuple>

namespace cachalot {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

TEST(Round, ReadsBackWhatWasWritten) {
  const std::vector<TokenId> tokens{5, 6, 7};
  const std::vector<BlockId> blocks{2, 9};
  const Round round{
      .number = 12,
      .num_steps = 8,
      .all_logits = true,
      .sequences = {{.first_position = 3,
                     .num_tokens = 3,
                     .num_prompt_tokens = 4,
                     .sample = true,
                     .prompt_logits = true,
                     .tokens = tokens,
                     .blocks = blocks},
                    {.first_position = 1, .num_tokens = 1, .tokens = std::span(tokens).last(1), .blocks = {}}}};
  std::vector<std::byte> bytes;
  encode_round(round, bytes);
  const RoundLimits limits{.max_num_seqs = 2, .max_rows = 4, .max_model_len = 64, .block_size = 64};
  EXPECT_EQ(bytes.size(), limits.max_round_bytes()) << "two blocks in all";
  Round read;
  ASSERT_TRUE(decode_round(bytes, read));
  EXPECT_EQ(read.number, 12U);
  EXPECT_EQ(read.num_steps, 8);
  EXPECT_TRUE(read.all_logits);
  EXPECT_FALSE(read.leave);
  ASSERT_EQ(read.sequences.size(), 2U);
  EXPECT_EQ(read.sequences[0].first_position, 3);
  EXPECT_EQ(read.sequences[0].num_prompt_tokens, 4);
  EXPECT_TRUE(read.sequences[0].sample);
  EXPECT_TRUE(read.sequences[0].prompt_logits);
  EXPECT_THAT(read.sequences[0].tokens, ElementsAre(5, 6, 7));
  EXPECT_THAT(read.sequences[0].blocks, ElementsAre(2, 9));
  EXPECT_THAT(read.sequences[1].tokens, ElementsAre(7));
  EXPECT_FALSE(read.sequences[1].sample);
}

TEST(Round, ACutOffOrForeignMessageIsRefused) {
  const std::vector<TokenId> tokens{5, 6, 7};
  std::vector<std::byte> bytes;
  encode_round({.sequences = {{.num_tokens = 3, .tokens = tokens, .blocks = {}}}}, bytes);
  Round read;
  for (size_t size = 0; size < bytes.size(); size++)
    EXPECT_FALSE(decode_round(std::span(bytes).first(size), read)) << size;
  bytes[0] = std::byte{0};
  EXPECT_FALSE(decode_round(bytes, read));
}

// A rank of ten blocks of four tokens, and a leader that may say anything.
class CheckedRound : public testing::Test {
 protected:
  CheckedRound() {
    round_.sequences.reserve(8);  // tests keep references
    round_.num_steps = 1;
    round_.sequences = {{.first_position = 3, .num_tokens = 3, .num_prompt_tokens = 6, .sample = true}, {}};
    round_.sequences[1] = {.first_position = 4, .num_tokens = 1, .num_prompt_tokens = 2, .sample = true};
    borrow();
  }
  void borrow() {
    round_.sequences[0].tokens = tokens_;
    round_.sequences[0].blocks = blocks_;
    round_.sequences[1].tokens = std::span(tokens_).last(1);
    round_.sequences[1].blocks = blocks_;
  }
  // What the rank says to the round when `change` has been made to it; "" if it takes it.
  std::string said(const std::function<void()>& change) {
    const auto [round, tokens, blocks] = std::tuple(round_, tokens_, blocks_);
    change();
    const Status status = check_round(round_, limits_);
    std::tie(round_, tokens_, blocks_) = std::tie(round, tokens, blocks);
    borrow();
    return status ? "" : status.error().message;
  }

  const RoundLimits limits_{.max_num_seqs = 2,
                            .max_rows = 8,
                            .max_steps = 4,
                            .max_model_len = 18,
                            .block_size = 4,
                            .num_blocks = 10,
                            .vocab_size = 100};
  std::vector<TokenId> tokens_{0, 50, 99};
  std::vector<BlockId> blocks_{9, 0};
  Round round_;
};

TEST_F(CheckedRound, IsTakenWithinTheLimits) {
  EXPECT_EQ(said([] {}), "");
  EXPECT_EQ(said([&] { round_.sequences.clear(); }), "") << "of a replica without requests";
  EXPECT_EQ(said([&] { round_ = {.leave = true}; }), "");
  EXPECT_EQ(said([&] { round_.sequences.resize(1), round_.all_logits = true; }), "");
  EXPECT_EQ(said([&] { round_.sequences.erase(round_.sequences.begin()), round_.num_steps = 4; }), "");
}

TEST_F(CheckedRound, IsRefusedWithABlockThatTheRankHasNot) {
  EXPECT_THAT(said([&] { blocks_[1] = 10; }),
              HasSubstr("refuses the leader's round 0: sequence 0 of 2: block 10; this rank has 10 blocks"));
  EXPECT_THAT(said([&] { blocks_[0] = -1; }), HasSubstr("block -1"));
}

TEST_F(CheckedRound, IsRefusedWithEveryOtherNumberOutsideOfWhatTheRankHas) {
  RoundSequence& first = round_.sequences[0];
  EXPECT_THAT(said([&] { tokens_[1] = 100; }), HasSubstr("token 100; the vocabulary has 100"));
  EXPECT_THAT(said([&] { tokens_[1] = -1; }), HasSubstr("token -1"));
  EXPECT_THAT(said([&] { first.first_position = -1; }), HasSubstr("3 tokens from position -1 on"));
  EXPECT_THAT(said([&] { first.first_position = 6; }), HasSubstr("its 2 blocks have 8 slots"));
  EXPECT_THAT(said([&] { first.first_position = INT32_MAX; }), HasSubstr("2147483647"));
  EXPECT_THAT(said([&] { first.num_tokens = 0; }), HasSubstr("0 tokens"));
  EXPECT_THAT(said([&] { first.num_prompt_tokens = 19; }), HasSubstr("19 prompt tokens; max_model_len is 18"));
  EXPECT_THAT(said([&] { first.num_prompt_tokens = -1; }), HasSubstr("-1 prompt tokens"));
  EXPECT_THAT(said([&] { blocks_.assign(5, 1), borrow(), first.first_position = 16; }),
              HasSubstr("max_model_len is 18"));
  EXPECT_THAT(said([&] { blocks_.assign(6, 1), borrow(); }), HasSubstr("6 blocks; a sequence has at most 5"));
  EXPECT_THAT(said([&] { round_.sequences.resize(3, round_.sequences[1]); }), HasSubstr("3 sequences; at most 2"));
  EXPECT_THAT(said([&] { round_.num_steps = 0; }), HasSubstr("0 steps; it may have 1 to 4"));
  EXPECT_THAT(said([&] { round_.num_steps = 5; }), HasSubstr("5 steps"));
  EXPECT_THAT(said([&] { round_.num_steps = 2; }), HasSubstr("3 tokens in a round of 2 steps"));
  EXPECT_THAT(said([&] { round_.all_logits = true; }), HasSubstr("2 sequences of which all logits are wanted"));
  EXPECT_THAT(said([&] { round_.sequences.clear(), round_.all_logits = true; }), HasSubstr("0 sequences"));
  EXPECT_THAT(said([&] {
                tokens_.assign(9, 1), blocks_.assign(3, 1), borrow();
                first.first_position = 0, first.num_tokens = 9;
              }),
              HasSubstr("10 token rows; a step has at most 8"));
}

TEST_F(CheckedRound, ALaterStepIsHeldToItsBlocks) {
  RoundSequence next = round_.sequences[1];
  next.first_position = 7;
  EXPECT_TRUE(check_step(next, limits_));
  next.first_position = 8;
  EXPECT_THAT(check_step(next, limits_).error().message, HasSubstr("its 2 blocks have 8 slots"));
}

}  // namespace
}  // namespace cachalot
