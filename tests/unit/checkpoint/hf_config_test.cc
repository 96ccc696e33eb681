// SPDX-License-Identifier: Apache-2.0
#include "server/checkpoint/hf_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <utility>

namespace limpid {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
constexpr double kInfinity = std::numeric_limits<double>::infinity();

HfConfig Parse(const std::string& text) {
  auto config = HfConfig::Parse(text, "config.json");
  EXPECT_TRUE(config.ok()) << config.status();
  return *std::move(config);
}

TEST(HfConfigTest, ReadsEveryType) {
  HfConfig config = Parse(R"({"i": 7, "n": -3, "d": 1e-5, "b": true, "s": "x",
                              "ss": ["a", "b"], "ds": [1, 2.5], "empty": []})");
  EXPECT_EQ(config.Int("i", 0, 0, 10), 7);
  EXPECT_EQ(config.Int("n", 0, -5, 5), -3);
  EXPECT_EQ(config.RequiredInt("i", 7, 7), 7);
  EXPECT_EQ(config.Double("d", 0), 1e-5);
  EXPECT_EQ(config.Double("i", 0), 7.0);
  EXPECT_TRUE(config.Bool("b", false));
  EXPECT_EQ(config.String("s", "y"), "x");
  EXPECT_THAT(config.Strings("ss"), ElementsAre("a", "b"));
  EXPECT_THAT(config.Doubles("ds"), ElementsAre(1.0, 2.5));
  EXPECT_TRUE(config.Strings("empty").empty());
  EXPECT_TRUE(config.Doubles("empty").empty());
  EXPECT_TRUE(config.IsString("s"));
  EXPECT_FALSE(config.IsString("i"));
  EXPECT_TRUE(config.status().ok()) << config.status();
}

TEST(HfConfigTest, MissingAndNullTakeTheDefault) {
  HfConfig config = Parse(R"({"null": null})");
  for (const char* name : {"none", "null"}) {
    EXPECT_FALSE(config.Has(name));
    EXPECT_FALSE(config.IsString(name));
    EXPECT_EQ(config.Int(name, 100, 0, 10), 100);
    EXPECT_EQ(config.Double(name, 0.5), 0.5);
    EXPECT_TRUE(config.Bool(name, true));
    EXPECT_EQ(config.String(name, "y"), "y");
    EXPECT_TRUE(config.Strings(name).empty());
    EXPECT_TRUE(config.Doubles(name).empty());
    EXPECT_FALSE(config.Object(name).Has("x"));
  }
  EXPECT_TRUE(config.status().ok());
}

TEST(HfConfigTest, NamesEveryMistake) {
  HfConfig config =
      Parse(R"({"i": "7", "range": 11, "huge": 18446744073709551615,
      "fraction": 1.5, "d": "x", "b": 1, "s": 3, "ss": ["a", 1], "ds": [1, "x"],
      "o": [], "truth": true})");
  EXPECT_EQ(config.Int("i", 5, 0, 10), 5);
  EXPECT_EQ(config.Int("range", 6, 0, 10), 6);
  EXPECT_EQ(config.Int("huge", 7, 0, 10), 7);
  EXPECT_EQ(config.Int("fraction", 8, 0, 10), 8);
  EXPECT_EQ(config.Int("truth", 9, 0, 10), 9);
  EXPECT_EQ(config.Double("d", 0.5), 0.5);
  EXPECT_TRUE(config.Bool("b", true));
  EXPECT_EQ(config.String("s", "y"), "y");
  EXPECT_TRUE(config.Strings("ss").empty());
  EXPECT_TRUE(config.Doubles("ds").empty());
  EXPECT_FALSE(config.Object("o").Has("x"));
  EXPECT_EQ(config.RequiredInt("needed", 1, 10), 1);
  config.AddError("pair", "does not fit");

  const absl::Status status = config.status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("range is 11, must be from 0 to 10"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("config.json"));
  const ErrorDetails details = GetErrorDetails(status);
  EXPECT_EQ(details.reason, "CONFIG_INVALID");
  EXPECT_EQ(details.metadata.at("file"), "config.json");
  std::vector<std::string> fields;
  for (const auto& violation : details.violations) {
    fields.push_back(violation.field);
  }
  EXPECT_THAT(fields,
              ElementsAre("i", "range", "huge", "fraction", "truth", "d", "b",
                          "s", "ss", "ds", "o", "needed", "pair"));
}

TEST(HfConfigTest, AcceptsNumbersThatPythonWrites) {
  HfConfig config = Parse(R"({"a": Infinity, "b": -Infinity, "c":NaN,
      "d": {"__float__": "Infinity"}, "limit": [0.0, Infinity],
      "s": "Infinity \" NaN \\", "e": {"x": -Infinity}, "Infinity": 1})");
  EXPECT_EQ(config.Double("a", 0), kInfinity);
  EXPECT_EQ(config.Double("b", 0), -kInfinity);
  EXPECT_TRUE(std::isnan(config.Double("c", 0)));
  EXPECT_EQ(config.Double("d", 0), kInfinity);
  EXPECT_THAT(config.Doubles("limit"), ElementsAre(0.0, kInfinity));
  EXPECT_EQ(config.String("s", ""), "Infinity \" NaN \\");
  EXPECT_EQ(config.Object("e").Double("x", 0), -kInfinity);
  EXPECT_EQ(config.Int("Infinity", 0, 0, 1), 1);
  EXPECT_TRUE(config.status().ok()) << config.status();
  EXPECT_EQ(config.Int("a", 3, 0, 10), 3);
  EXPECT_FALSE(config.status().ok());
}

TEST(HfConfigTest, ObjectsKeepTheirOwnMistakes) {
  HfConfig config = Parse(R"({"outer": {"inner": {"x": "no"}}})");
  HfConfig outer = config.Object("outer");
  HfConfig inner = outer.Object("inner");
  EXPECT_EQ(inner.Int("x", 2, 0, 5), 2);
  EXPECT_TRUE(config.status().ok());
  EXPECT_TRUE(outer.status().ok());
  EXPECT_THAT(std::string(inner.status().message()),
              HasSubstr("outer.inner.x"));
}

TEST(HfConfigTest, ObjectOutlivesItsParent) {
  HfConfig inner = Parse("{}");
  {
    HfConfig config = Parse(R"({"o": {"x": 4}})");
    inner = config.Object("o");
  }
  EXPECT_EQ(inner.Int("x", 0, 0, 9), 4);
}

TEST(HfConfigTest, RefusesWhatIsNoObject) {
  using std::string_literals::operator""s;
  for (const std::string& text :
       {""s, "[]"s, "7"s, "{"s, "{} x"s, "{}\0"s, "{\"a\": Infinityy}"s,
        "{\"a\": inf}"s, "{\"\xff\": 1}"s, "{\"a\": 1e999}"s, "NaN"s,
        "{\"a\": " + std::string(1'000'000, '[') + "}",
        "{\"a\": " + std::string(100, '[') + std::string(100, ']') + "}"}) {
    SCOPED_TRACE(text.substr(0, 40));
    const absl::Status status = HfConfig::Parse(text, "c.json").status();
    EXPECT_TRUE(absl::IsDataLoss(status)) << status;
    EXPECT_EQ(GetErrorDetails(status).reason, "CONFIG_DAMAGED");
    EXPECT_EQ(GetErrorDetails(status).metadata.at("file"), "c.json");
  }
}

}  // namespace
}  // namespace limpid
