#include "config/environment.h"

#include <gmock/gmock.h>

#include <cstdlib>

namespace cachalot {
namespace {

TEST(Environment, FindsVariablesByTheBeginningOfTheirName) {
  setenv("CACHALOT_TEST_B", "two=2", 1);
  setenv("CACHALOT_TEST_A", "", 1);
  setenv("NOT_CACHALOT_TEST_C", "3", 1);
  EXPECT_THAT(environment_variables("CACHALOT_TEST_"),
              testing::ElementsAre("CACHALOT_TEST_A=", "CACHALOT_TEST_B=two=2"));
  EXPECT_THAT(environment_variables("CACHALOT_TEST_Z"), testing::IsEmpty());
}

}  // namespace
}  // namespace cachalot
