// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "server/base/clock.h"

namespace limpid {
namespace {

class SetClock final : public Clock {
 public:
  absl::Time Now() const override { return now; }
  absl::Time now = absl::UnixEpoch();
};

TEST(CancelTokenTest, IsOkUntilCancelled) {
  CancelToken token;
  const CancelToken copy = token;
  EXPECT_TRUE(copy.Check().ok());
  EXPECT_FALSE(copy.cancelled());
  token.Cancel();
  EXPECT_TRUE(copy.cancelled());
  EXPECT_EQ(copy.Check().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(GetErrorDetails(copy.Check()).reason, "CANCELLED");
}

TEST(CancelTokenTest, DeadlinePasses) {
  SetClock clock;
  const absl::Time deadline = clock.now + absl::Seconds(5);
  const CancelToken token(deadline, clock);
  EXPECT_EQ(token.deadline(), deadline);
  clock.now = deadline - absl::Nanoseconds(1);
  EXPECT_TRUE(token.Check().ok());
  clock.now = deadline;
  EXPECT_EQ(token.Check().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_FALSE(token.cancelled());
}

TEST(CancelTokenTest, CancelledComesBeforeLate) {
  SetClock clock;
  CancelToken token(clock.now, clock);
  token.Cancel();
  EXPECT_EQ(token.Check().code(), absl::StatusCode::kCancelled);
}

TEST(CancelTokenTest, WithoutDeadlineTimeDoesNotMatter) {
  SetClock clock;
  const CancelToken token(absl::InfiniteFuture(), clock);
  clock.now = absl::InfiniteFuture();
  EXPECT_TRUE(token.Check().ok());
}

TEST(ClockTest, RealClockRuns) {
  EXPECT_GT(Clock::Real().Now(), absl::UnixEpoch());
  EXPECT_EQ(&Clock::Real(), &Clock::Real());
}

}  // namespace
}  // namespace limpid
