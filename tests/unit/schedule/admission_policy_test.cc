// SPDX-License-Identifier: Apache-2.0
#include "server/schedule/admission_policy.h"

#include <gtest/gtest.h>

namespace limpid {
namespace {

PoolLoad Load() {
  PoolLoad load;
  load.limits.max_running = 2;
  load.limits.max_waiting = 3;
  load.num_waiting = 3;
  load.num_running = 2;
  return load;
}

TEST(AdmissionPolicyTest, RetryTimeFollowsTheWorkWithinBounds) {
  PoolLoad load = Load();
  EXPECT_EQ(RetryAfter(load), absl::Seconds(1));
  load.mean_run_time = absl::Seconds(4);
  EXPECT_EQ(RetryAfter(load), absl::Seconds(6));
  load.waiting_seconds = 20;
  EXPECT_EQ(RetryAfter(load), absl::Seconds(10));
  load.mean_run_time = absl::Hours(1);
  EXPECT_EQ(RetryAfter(load), absl::Seconds(30));
}

TEST(AdmissionPolicyTest, RefusalsHaveAReasonAndSayWhenToRetry) {
  const auto reason = [](Admission admission) {
    const absl::Status status = RefusalStatus(admission, {1, "a"}, Load());
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
    EXPECT_TRUE(GetErrorDetails(status).retry_after.has_value());
    return GetErrorDetails(status).reason;
  };
  EXPECT_EQ(reason(Admission::kQueueFull), "QUEUE_FULL");
  EXPECT_EQ(reason(Admission::kQueueTooLong), "QUEUE_TOO_LONG");
  EXPECT_EQ(reason(Admission::kClientQueueFull), "CLIENT_QUEUE_FULL");
  EXPECT_TRUE(GetErrorDetails(DrainingStatus()).retry_after.has_value());
}

TEST(AdmissionPolicyTest, TryingAgainDoesNotHelpWhatCanNeverRun) {
  const absl::Status status =
      RefusalStatus(Admission::kTooLarge, {1, "a"}, Load());
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(GetErrorDetails(status).reason, "REQUEST_TOO_LARGE");
  EXPECT_FALSE(GetErrorDetails(status).retry_after.has_value());
}

TEST(AdmissionPolicyTest, EstimatesMayExceedTheTimeLeftButNotByFar) {
  const absl::Time now = absl::UnixEpoch();
  const absl::Time deadline = now + absl::Seconds(10);
  EXPECT_TRUE(CheckStart(deadline, 0, now).ok());
  EXPECT_TRUE(CheckStart(deadline, 39, now).ok());
  EXPECT_EQ(GetErrorDetails(CheckStart(deadline, 41, now)).reason,
            "DEADLINE_TOO_SHORT");
  EXPECT_EQ(LatestStart(deadline, 20), now + absl::Seconds(5));
  EXPECT_EQ(GetErrorDetails(CheckStart(deadline, 0, deadline)).reason,
            "DEADLINE_EXCEEDED");
  EXPECT_EQ(LatestStart(absl::InfiniteFuture(), 1e9), absl::InfiniteFuture());
}

}  // namespace
}  // namespace limpid
