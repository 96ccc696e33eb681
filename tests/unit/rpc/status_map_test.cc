// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/status_map.h"

#include <gtest/gtest.h>

#include "tests/support/in_process_server.h"

namespace limpid {
namespace {

using testing::Details;
using testing::DetailsOf;

TEST(StatusMapTest, CarriesEveryDetail) {
  ErrorDetails details;
  details.reason = "WHY";
  details.metadata["file"] = "f";
  details.violations = {{"a.b", "wrong"}};
  details.retry_after = absl::Milliseconds(2500);
  const grpc::Status status = ToGrpcStatus(
      MakeError(absl::StatusCode::kUnavailable, "later", details), "id");
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(status.error_message(), "later");
  const Details decoded = DetailsOf(status);
  EXPECT_EQ(decoded.info.domain(), "limpid");
  EXPECT_EQ(decoded.info.reason(), "WHY");
  EXPECT_EQ(decoded.info.metadata().at("file"), "f");
  EXPECT_EQ(decoded.info.metadata().at("request_id"), "id");
  EXPECT_EQ(decoded.Fields(), std::vector<std::string>{"a.b"});
  EXPECT_DOUBLE_EQ(decoded.retry_seconds, 2.5);
}

TEST(StatusMapTest, StatusesWithoutReasonTakeTheirCodeForOne) {
  const Details details =
      DetailsOf(ToGrpcStatus(absl::AbortedError("gone"), "id"));
  EXPECT_EQ(details.info.reason(), "ABORTED");
  EXPECT_FALSE(details.has_retry);
  EXPECT_TRUE(ToGrpcStatus(absl::OkStatus(), "id").ok());
}

TEST(StatusMapTest, StaysBelowTheLimitOfMetadata) {
  ErrorDetails details;
  details.reason = "WHY";
  for (int i = 0; i < 1000; ++i) {
    details.violations.push_back({"field", std::string(300, 'x')});
    details.metadata[std::to_string(i)] = std::string(300, 'y');
  }
  const grpc::Status status =
      ToGrpcStatus(MakeError(absl::StatusCode::kInvalidArgument,
                             std::string(100000, '\xE9'), details),
                   "id");
  const size_t size =
      3 * status.error_message().size() + status.error_details().size() * 4 / 3;
  EXPECT_LT(size, 7500u);
  const Details decoded = DetailsOf(status);
  EXPECT_EQ(decoded.info.metadata().at("request_id"), "id");
  EXPECT_GT(decoded.bad_request.field_violations_size(), 1);
  EXPECT_NE(decoded.bad_request.field_violations().rbegin()->description().find(
                "more"),
            std::string::npos);
}

}  // namespace
}  // namespace limpid
