// SPDX-License-Identifier: Apache-2.0
#include "server/base/status.h"

#include <gtest/gtest.h>

#include <string>

namespace limpid {
namespace {

TEST(ErrorDetailsTest, SurviveTheStatus) {
  ErrorDetails details;
  details.reason = "MODEL_NOT_FOUND";
  details.metadata = {
      {"file", "a:b/3:c"}, {"", ""}, {"nul", std::string(1, 0)}};
  details.violations = {{"options.steps", "is 4, must be 8 to 1024"},
                        {"", "12:"}};
  details.retry_after = absl::Milliseconds(250);
  const absl::Status status =
      MakeError(absl::StatusCode::kNotFound, "no such model", details);
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(status.message(), "no such model");

  const ErrorDetails back = GetErrorDetails(status);
  EXPECT_EQ(back.reason, details.reason);
  EXPECT_EQ(back.metadata, details.metadata);
  ASSERT_EQ(back.violations.size(), 2u);
  EXPECT_EQ(back.violations[0].field, "options.steps");
  EXPECT_EQ(back.violations[1].description, "12:");
  EXPECT_EQ(back.retry_after, absl::Milliseconds(250));
}

TEST(ErrorDetailsTest, ReasonAloneHasNoRetry) {
  const ErrorDetails back = GetErrorDetails(
      MakeError(absl::StatusCode::kInternal, "BROKEN", "a message"));
  EXPECT_EQ(back.reason, "BROKEN");
  EXPECT_TRUE(back.metadata.empty());
  EXPECT_TRUE(back.violations.empty());
  EXPECT_FALSE(back.retry_after.has_value());
}

TEST(ErrorDetailsTest, ForeignStatusHasNone) {
  EXPECT_TRUE(GetErrorDetails(absl::InternalError("x")).reason.empty());
  EXPECT_TRUE(GetErrorDetails(absl::OkStatus()).reason.empty());
}

TEST(ViolationsTest, NoneIsOk) {
  const Violations violations;
  EXPECT_TRUE(violations.empty());
  EXPECT_TRUE(violations.ToStatus().ok());
}

TEST(ViolationsTest, NamesEveryField) {
  Violations violations;
  violations.Add("a.b", "is wrong");
  violations.Add("c", "is missing");
  EXPECT_FALSE(violations.empty());
  const absl::Status status = violations.ToStatus();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(), "a.b: is wrong; c: is missing");
  const ErrorDetails details = GetErrorDetails(status);
  EXPECT_EQ(details.reason, "INVALID_REQUEST");
  ASSERT_EQ(details.violations.size(), 2u);
  EXPECT_EQ(details.violations[1].field, "c");
}

absl::StatusOr<int> Half(int number) {
  if (number % 2 != 0) return absl::InvalidArgumentError("odd");
  return number / 2;
}

absl::StatusOr<int> Quarter(int number) {
  LIMPID_ASSIGN_OR_RETURN(const int half, Half(number));
  LIMPID_ASSIGN_OR_RETURN(const int quarter, Half(half));
  return quarter;
}

absl::Status CheckQuarter(int number) {
  LIMPID_RETURN_IF_ERROR(Quarter(number).status());
  return absl::OkStatus();
}

TEST(StatusMacrosTest, PassValuesAndErrorsOn) {
  EXPECT_EQ(*Quarter(8), 2);
  EXPECT_EQ(Quarter(6).status().message(), "odd");
  EXPECT_TRUE(CheckQuarter(8).ok());
  EXPECT_FALSE(CheckQuarter(3).ok());
}

}  // namespace
}  // namespace limpid
