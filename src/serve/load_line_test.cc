#include "serve/load_line.h"

#include <gtest/gtest.h>

namespace cachalot {
namespace {

TEST(LoadLine, IsReadBackFromALineOfTheLog) {
  const auto load = parse_load_line("2026-11-24 08:06:47.123 I rank 3: " + load_line({.rank = 3, .percent = 40}));
  ASSERT_TRUE(load.has_value());
  EXPECT_EQ(load->rank, 3);
  EXPECT_EQ(load->percent, 40);
}

TEST(LoadLine, OtherLinesAreNone) {
  EXPECT_FALSE(parse_load_line("2026-11-24 08:06:47.123 I loading 40% (1.0 of 2.0 GiB, 3 s)").has_value());
  EXPECT_FALSE(parse_load_line("load-line: rank ").has_value());
}

TEST(LoadLine, TheEndIsAlwaysSaidOnce) {
  LoadLines lines;
  EXPECT_TRUE(lines.due(0));
  EXPECT_FALSE(lines.due(1)) << "so soon";
  EXPECT_TRUE(lines.due(100));
  EXPECT_FALSE(lines.due(100));
}

}  // namespace
}  // namespace cachalot
