// SPDX-License-Identifier: Apache-2.0
#include "server/observe/log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <sstream>

namespace limpid {
namespace {

using ::testing::HasSubstr;

RequestLine Line() {
  RequestLine line;
  line.request_id = "id-1";
  line.rpc = "Explain";
  line.model = "m";
  line.method = "raw-attention";
  line.num_tokens = 5;
  line.queue = absl::Microseconds(1500);
  line.reply_bytes = 99;
  return line;
}

TEST(LogTest, RequestsAreOneJsonObjectPerLine) {
  std::ostringstream out;
  Log log(LogOptions(), out);
  log.Request(Line());
  const auto json = nlohmann::json::parse(out.str());
  EXPECT_EQ(json["level"], "info");
  EXPECT_EQ(json["request_id"], "id-1");
  EXPECT_EQ(json["code"], "OK");
  EXPECT_EQ(json["tokens"], 5);
  EXPECT_EQ(json["queue_ms"], 1.5);
  EXPECT_EQ(json["reply_bytes"], 99);
  EXPECT_THAT(json["time"].get<std::string>(), ::testing::EndsWith("Z"));
}

TEST(LogTest, OurFaultsAreWarnings) {
  std::ostringstream out;
  Log log(LogOptions(), out);
  RequestLine line = Line();
  line.code = absl::StatusCode::kInternal;
  line.reason = "INTERNAL";
  log.Request(line);
  EXPECT_EQ(nlohmann::json::parse(out.str())["level"], "warning");
}

TEST(LogTest, ValuesCannotBreakTheLine) {
  for (const LogFormat format : {LogFormat::kJson, LogFormat::kText}) {
    std::ostringstream out;
    Log log({LogLevel::kInfo, format}, out);
    log.Write(LogLevel::kInfo, "a\nb {}", {{"key", "\x1b[2J\n\xFF"}});
    const std::string line = out.str();
    EXPECT_EQ(line.find('\n'), line.size() - 1);
    EXPECT_EQ(line.find('\x1b'), std::string::npos);
  }
}

TEST(LogTest, LevelsBelowTheLimitAreDropped) {
  std::ostringstream out;
  Log log({LogLevel::kWarning, LogFormat::kText}, out);
  log.Write(LogLevel::kInfo, "quiet");
  EXPECT_EQ(out.str(), "");
  log.Write(LogLevel::kError, "loud");
  EXPECT_THAT(out.str(), HasSubstr("error loud"));
}

}  // namespace
}  // namespace limpid
