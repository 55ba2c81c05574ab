#include "engine/round.h"

#include <gmock/gmock.h>

namespace cachalot {
namespace {

using testing::ElementsAre;

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
  EXPECT_EQ(bytes.size(), max_round_bytes(2, 4, 1)) << "two blocks in all";
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

}  // namespace
}  // namespace cachalot
