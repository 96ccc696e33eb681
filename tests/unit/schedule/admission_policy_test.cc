// SPDX-License-Identifier: Apache-2.0
#include "server/schedule/admission_policy.h"

#include <gtest/gtest.h>

namespace limpid {
namespace {

PoolLoad Load(int64_t queued, int64_t running) {
  PoolLoad load;
  load.num_workers = 2;
  load.max_queue_size = 3;
  load.num_queued = queued;
  load.num_running = running;
  return load;
}

TEST(AdmissionPolicyTest, FreeWorkersDoNotCountAsQueue) {
  EXPECT_EQ(Decide(Load(4, 0)), Admission::kAccept);
  EXPECT_EQ(Decide(Load(5, 0)), Admission::kQueueFull);
  EXPECT_EQ(Decide(Load(2, 2)), Admission::kAccept);
  EXPECT_EQ(Decide(Load(3, 2)), Admission::kQueueFull);
}

TEST(AdmissionPolicyTest, DrainingComesFirst) {
  PoolLoad load = Load(9, 2);
  load.draining = true;
  EXPECT_EQ(Decide(load), Admission::kDraining);
}

TEST(AdmissionPolicyTest, RetryTimeFollowsTheWorkWithinBounds) {
  PoolLoad load = Load(3, 2);
  EXPECT_EQ(RetryAfter(load), absl::Seconds(1));
  load.mean_run_time = absl::Seconds(4);
  EXPECT_EQ(RetryAfter(load), absl::Seconds(6));
  load.mean_run_time = absl::Hours(1);
  EXPECT_EQ(RetryAfter(load), absl::Seconds(30));
}

TEST(AdmissionPolicyTest, RefusalsSayWhenToRetry) {
  const PoolLoad load = Load(3, 2);
  const absl::Status full = RefusalStatus(Admission::kQueueFull, load);
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(GetErrorDetails(full).reason, "QUEUE_FULL");
  EXPECT_TRUE(GetErrorDetails(full).retry_after.has_value());
  const absl::Status draining = RefusalStatus(Admission::kDraining, load);
  EXPECT_EQ(draining.code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(GetErrorDetails(draining).retry_after.has_value());
}

}  // namespace
}  // namespace limpid
