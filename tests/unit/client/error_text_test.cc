// SPDX-License-Identifier: Apache-2.0
//
// Errors in words: everything that is known, the flag to look at, what to try,
// and nothing that acts on the terminal.
#include "client/cli/error_text.h"

#include <nlohmann/json.hpp>
#include <sstream>
#include <string>

#include "client/cli/text_layout.h"
#include "client/error_report.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/fake_explanation_service.h"

namespace limpid::cli {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

absl::Status Refusal() {
  return FromGrpcStatus(
      testing::MakeError(grpc::StatusCode::INVALID_ARGUMENT, "INVALID_REQUEST",
                         "two \x1b[2Jfields", {{"input.text", "is empty"}}, 1),
      "id-1");
}

TEST(ErrorTextTest, ErrorsShowEverythingThatIsKnown) {
  std::ostringstream out, err;
  Terminal terminal{.out = out, .err = err};
  PrintError(terminal, Refusal());
  EXPECT_EQ(out.str(), "");
  for (const char* part : {"INVALID_ARGUMENT", "INVALID_REQUEST", "fields",
                           "input.text (--text): is empty", "1s", "id-1"}) {
    EXPECT_THAT(err.str(), HasSubstr(part));
  }
  EXPECT_THAT(err.str(), Not(HasSubstr("\x1b")));
}

TEST(ErrorTextTest, LinesFitTheTerminal) {
  std::ostringstream out, err;
  Terminal terminal{.out = out, .err = err, .columns = 40};
  PrintError(terminal, absl::UnavailableError(std::string(200, 'x')));
  std::istringstream lines(err.str());
  for (std::string line; std::getline(lines, line);) {
    EXPECT_LE(DisplayWidth(line), 40) << line;
  }
}

TEST(ErrorTextTest, JsonIsOneObjectOnOneLine) {
  std::ostringstream out, err;
  Terminal terminal{.out = out, .err = err};
  PrintError(terminal, Refusal(), /*json=*/true);
  EXPECT_EQ(err.str().find('\n'), err.str().size() - 1);
  const auto error = nlohmann::json::parse(err.str())["error"];
  EXPECT_EQ(error["code"], "INVALID_ARGUMENT");
  EXPECT_EQ(error["violations"][0]["field"], "input.text");
}

TEST(ErrorTextTest, FieldsHaveFlags) {
  EXPECT_EQ(FlagOfField("input.text"), "--text");
  EXPECT_EQ(FlagOfField("input.tokens.ids[3]"), "--tokens");
  EXPECT_EQ(FlagOfField("attention.layers[0]"), "--layers");
  EXPECT_EQ(FlagOfField("options.steps"), "--option");
  EXPECT_EQ(FlagOfField("points[0].target.token_id"), "--target");
  EXPECT_EQ(FlagOfField("points[1].position.index"), "--position");
  EXPECT_EQ(FlagOfField("something.new"), "");
}

TEST(ErrorTextTest, HintsSayWhatToTry) {
  EXPECT_THAT(WhatToTry(absl::UnavailableError("refused")),
              HasSubstr("--server"));
  EXPECT_THAT(WhatToTry(absl::DeadlineExceededError("late")),
              HasSubstr("--deadline"));
  const absl::Status unknown = FromGrpcStatus(
      testing::MakeError(grpc::StatusCode::NOT_FOUND, "MODEL_NOT_FOUND", "no"),
      "");
  EXPECT_THAT(WhatToTry(unknown), HasSubstr("limpid models"));
  EXPECT_EQ(WhatToTry(absl::InternalError("broken")), "");
}

}  // namespace
}  // namespace limpid::cli
