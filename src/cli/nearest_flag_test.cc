#include "cli/nearest_flag.h"

#include <gtest/gtest.h>

namespace cachalot {
namespace {

TEST(NearestFlag, IsNamedBesideTheUnknownOne) {
  CLI::App app;
  int value = 0;
  app.add_option("--max-model-len", value);
  app.add_option("--block-size", value);
  EXPECT_EQ(describe_unknown(app, {"--max-modle-len", "8"}),
            "--max-modle-len: no such flag; the nearest is --max-model-len");
  EXPECT_EQ(describe_unknown(app, {"--blocksize=3"}), "--blocksize: no such flag; the nearest is --block-size");
  EXPECT_EQ(describe_unknown(app, {"--zzz"}), "--zzz: no such flag");
  EXPECT_EQ(describe_unknown(app, {"here", "there"}), "not expected here: here there");
}

}  // namespace
}  // namespace cachalot
