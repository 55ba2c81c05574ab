#include "config/json.h"

#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <limits>

namespace cachalot {

namespace {

namespace json = boost::json;

TEST(JsonText, WritesNumbersAsAPersonDoes) {
  EXPECT_EQ(json_text(json::array{0.0, 1.5, -9999.0, 0.25, 1e-9, 12, -3, uint64_t{1} << 63}),
            "[0.0,1.5,-9999.0,0.25,1e-09,12,-3,9223372036854775808]");
  EXPECT_EQ(json_text(json::array{std::numeric_limits<double>::infinity(), true, nullptr}), "[null,true,null]");
  for (const double number : {0.1, 1e300, 123456789.125, -1e-300, 2.5e16})
    EXPECT_EQ(json::parse(json_text(number)).as_double(), number);
}

TEST(JsonText, IsValidUtf8WhateverTheStringsHold) {
  EXPECT_EQ(json_text("a\"\\\n\x01\xc3\xa9"), "\"a\\\"\\\\\\n\\u0001\xc3\xa9\"");
  for (const char* bytes : {"\xff", "a\xc3", "\xed\xa0\x80", "\xf0\x9f\x98", "\x80z"}) {
    const json::object object = {{bytes, json::array{json::string(bytes)}}};
    boost::system::error_code error;
    json::parse(json_text(object), error);
    EXPECT_FALSE(error) << json_text(object);
  }
}

TEST(JsonText, ReadsBackAsItWas) {
  const json::value value = {{"a", {1, 2, {{"b", json::object()}, {"c", json::array()}}}}, {"d", "\u20ac"}};
  EXPECT_EQ(json::parse(json_text(value)), value);
}

}  // namespace

}  // namespace cachalot
