// SPDX-License-Identifier: Apache-2.0
#include "server/base/json_guard.h"

#include <gtest/gtest.h>

#include <string>

namespace limpid {
namespace {

TEST(JsonGuardTest, CountsDepth) {
  EXPECT_TRUE(IsTameJson("{\"a\": [[1]]}", 3, 100));
  EXPECT_FALSE(IsTameJson("{\"a\": [[[1]]]}", 3, 100));
  EXPECT_TRUE(IsTameJson("[[],[],[]]", 2, 100));
  EXPECT_FALSE(IsTameJson(std::string(1'000'000, '['), 64, 1'000'000));
}

TEST(JsonGuardTest, CountsValues) {
  EXPECT_TRUE(IsTameJson("[1,2,3]", 9, 3));
  EXPECT_FALSE(IsTameJson("[1,2,3]", 9, 2));
}

TEST(JsonGuardTest, StringsDoNotCount) {
  EXPECT_TRUE(IsTameJson(R"("[[[{,,,\"[[\\")", 0, 0));
  EXPECT_TRUE(IsTameJson(R"(["\\", "]"])", 1, 2));
}

TEST(JsonGuardTest, RefusesNul) {
  using std::string_literals::operator""s;
  EXPECT_FALSE(IsTameJson("{}\0"s, 9, 9));
  EXPECT_FALSE(IsTameJson("\"\0\""s, 9, 9));
  EXPECT_FALSE(IsTameJson("\"\\\0\""s, 9, 9));
}

TEST(JsonGuardTest, EmptyTextIsTame) { EXPECT_TRUE(IsTameJson("", 0, 0)); }

}  // namespace
}  // namespace limpid
