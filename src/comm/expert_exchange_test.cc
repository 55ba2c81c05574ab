#include "comm/expert_exchange.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace cachalot {

namespace {

// R1 on 8 x 4 ranks, 2048 tokens a step and replica.
ExchangeShape r1_on_32() {
  return {.num_ranks = 32,
          .num_experts = 256,
          .top_k = 8,
          .hidden_size = 7168,
          .compute_dtype = DType::kBF16,
          .row_bytes = 14336,
          .max_rows = 512};
}

TEST(DispatchMessage, PutsRowsBehindTheHeaderAndIdsBehindTheRows) {
  const DispatchMessage message{.num_rows = 3, .row_bytes = 100, .top_k = 8};
  EXPECT_EQ(message.rows_offset(), 64);
  EXPECT_EQ(message.ids_offset(), 64 + 300);
  EXPECT_EQ(message.bytes(), 64 + 300 + 3 * 8 * 2);
  const DispatchMessage none{.num_rows = 0, .row_bytes = 100, .top_k = 8};
  EXPECT_EQ(none.bytes(), 64);
}

TEST(ExchangeLayout, HasRoomForTwiceWhatEvenlySpreadExpertsBring) {
  const ExchangeLayout layout(r1_on_32());
  EXPECT_EQ(layout.pairs_per_peer, 2 * 512 * 8 / 32);
  EXPECT_EQ(layout.rows_per_peer, 256);
  EXPECT_EQ(layout.max_arrived_rows(), 256 * 32);
  EXPECT_EQ(layout.max_arrived_pairs(), 256 * 32);
  EXPECT_EQ(layout.message_bytes() % 64, 0);
  EXPECT_GE(layout.message_bytes(), 64 + 256 * (14336 + 16));
  EXPECT_EQ(layout.results_bytes(), (256 * 32 + 512 * 8) * 14336);
}

TEST(ExchangeLayout, NeverAsksForMoreThanCanCome) {
  ExchangeShape shape = r1_on_32();
  shape.max_rows = 4;  // at most 4 rows with 8 experts each
  const ExchangeLayout few(shape);
  EXPECT_EQ(few.rows_per_peer, 4);
  EXPECT_EQ(few.pairs_per_peer, 32);
  shape.num_experts = 64;  // two a rank: a row has at most two pairs there
  EXPECT_EQ(ExchangeLayout(shape).pairs_per_peer, 8);
}

TEST(ExchangeLayout, OneRankHasOnlyItsResults) {
  ExchangeShape shape = r1_on_32();
  shape.num_ranks = 1;
  shape.max_bytes = 1;
  const ExchangeLayout layout(shape);
  EXPECT_EQ(layout.max_arrived_rows(), 512);
  EXPECT_EQ(layout.max_arrived_pairs(), 512 * 8);
  EXPECT_EQ(layout.bytes(), 512 * 8 * 14336);
}

TEST(ExchangeLayout, StaysWithinItsBoundAndAlwaysTakesOneRow) {
  ExchangeShape shape = r1_on_32();
  for (const int64_t max_bytes : {int64_t{1}, int64_t{16} << 20, int64_t{128} << 20}) {
    shape.max_bytes = max_bytes;
    const ExchangeLayout layout(shape);
    if (max_bytes == 1) {  // too little for a row and its pairs from everyone: the least there is
      EXPECT_EQ(layout.rows_per_peer, 1);
      EXPECT_EQ(layout.pairs_per_peer, 8);
    } else {
      EXPECT_LE(layout.sent_bytes(), max_bytes);
      EXPECT_LE(layout.arrived_bytes(), max_bytes);
      EXPECT_LE(layout.outgoing_rows() * 14336, max_bytes);
    }
  }
  // A bound above the rule changes nothing.
  shape.max_bytes = int64_t{1} << 40;
  EXPECT_EQ(ExchangeLayout(shape).bytes(), ExchangeLayout(r1_on_32()).bytes());
}

TEST(ExchangeLayout, SaysWhatItTakes) {
  EXPECT_EQ(ExchangeLayout(r1_on_32()).describe(),
            "expert exchange of 32 ranks with 8 experts each: at most 256 rows and 256 pairs from rank to rank in a "
            "pass, 112.1 MiB for rows to send, 112.1 MiB for rows that arrive, 168.0 MiB for results");
}

}  // namespace

}  // namespace cachalot
