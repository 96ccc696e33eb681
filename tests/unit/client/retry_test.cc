// SPDX-License-Identifier: Apache-2.0
//
// Calls are repeated only where that can help, and never past the deadline.
#include "client/retry.h"

#include <vector>

#include "client/error_report.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/fake_explanation_service.h"

namespace limpid {
namespace {

using ::testing::ElementsAre;

const absl::Status kUnavailable = absl::UnavailableError("down");

absl::Status UnavailableFor(double seconds) {
  return FromGrpcStatus(
      testing::MakeError(grpc::StatusCode::UNAVAILABLE, "MODEL_LOADING",
                         "loading", {}, seconds),
      "");
}

// A world whose time passes only in sleeps.
class RetryTest : public ::testing::Test {
 protected:
  absl::Status Run(std::vector<Attempt> results,
                   absl::Duration deadline = absl::Seconds(60)) {
    size_t next = 0;
    const RetryEnvironment environment{.now = [this] { return now_; },
                                       .sleep =
                                           [this](absl::Duration delay) {
                                             slept_.push_back(delay);
                                             now_ += delay;
                                             return !cancelled_;
                                           },
                                       .random = [] { return 1.0; }};
    const absl::Status status =
        RunWithRetry(RetryPolicy(), environment, now_ + deadline, [&] {
          ++attempts_;
          return results.at(std::min(next++, results.size() - 1));
        });
    return status;
  }

  absl::Time now_ = absl::UnixEpoch();
  std::vector<absl::Duration> slept_;
  int attempts_ = 0;
  bool cancelled_ = false;
};

TEST_F(RetryTest, SuccessNeedsOneAttempt) {
  EXPECT_TRUE(Run({{absl::OkStatus()}}).ok());
  EXPECT_EQ(attempts_, 1);
}

TEST_F(RetryTest, BacksOffExponentially) {
  EXPECT_TRUE(Run({{kUnavailable}, {kUnavailable}, {absl::OkStatus()}}).ok());
  EXPECT_THAT(slept_,
              ElementsAre(absl::Milliseconds(100), absl::Milliseconds(200)));
}

TEST_F(RetryTest, GivesUpAfterTheLastAttempt) {
  EXPECT_EQ(Run({{kUnavailable}}), kUnavailable);
  EXPECT_EQ(attempts_, 3);
}

TEST_F(RetryTest, WaitsAtLeastAsLongAsTheServerSays) {
  EXPECT_TRUE(Run({{UnavailableFor(4)}, {absl::OkStatus()}}).ok());
  ASSERT_EQ(slept_.size(), 1u);
  EXPECT_GE(slept_[0], absl::Seconds(4));
  EXPECT_LE(slept_[0], absl::Seconds(5));
}

TEST_F(RetryTest, FullQueuesAreTriedAgainAndLimitsAreNot) {
  const absl::Status full =
      FromGrpcStatus(testing::MakeError(grpc::StatusCode::RESOURCE_EXHAUSTED,
                                        "QUEUE_FULL", "full", {}, 2),
                     "");
  EXPECT_TRUE(Run({{full}, {absl::OkStatus()}}).ok());
  ASSERT_EQ(slept_.size(), 1u);
  EXPECT_GE(slept_[0], absl::Seconds(2));
  const absl::Status limit = absl::ResourceExhaustedError("too large");
  EXPECT_EQ(Run({{limit}, {absl::OkStatus()}}), limit);
}

TEST_F(RetryTest, DoesNotWaitPastTheDeadline) {
  EXPECT_TRUE(
      absl::IsUnavailable(Run({{UnavailableFor(4)}}, absl::Seconds(3))));
  EXPECT_EQ(attempts_, 1);
  EXPECT_TRUE(slept_.empty());
}

TEST_F(RetryTest, OtherErrorsAreFinal) {
  for (const auto code :
       {absl::StatusCode::kInternal, absl::StatusCode::kResourceExhausted,
        absl::StatusCode::kDeadlineExceeded, absl::StatusCode::kDataLoss}) {
    attempts_ = 0;
    EXPECT_EQ(Run({{absl::Status(code, "")}}).code(), code);
    EXPECT_EQ(attempts_, 1);
  }
}

TEST_F(RetryTest, DoesNotRepeatWhatWasHalfDelivered) {
  EXPECT_TRUE(absl::IsUnavailable(
      Run({{.status = kUnavailable, .repeatable = false}})));
  EXPECT_EQ(attempts_, 1);
}

TEST_F(RetryTest, CancellingEndsTheWait) {
  cancelled_ = true;
  EXPECT_TRUE(absl::IsCancelled(Run({{kUnavailable}})));
  EXPECT_EQ(attempts_, 1);
}

TEST(NextDelayTest, BackOffIsBoundedAndSpread) {
  RetryPolicy policy;
  policy.max_attempts = 100;
  const auto delay = [&](int attempts, double random) {
    return *NextDelay(policy, attempts, kUnavailable, absl::InfiniteDuration(),
                      random);
  };
  EXPECT_EQ(delay(50, 1), policy.max_backoff);
  EXPECT_EQ(delay(1, 0), policy.initial_backoff / 2);
  EXPECT_EQ(delay(1, 1), policy.initial_backoff);
}

TEST(NextDelayTest, HostileWaitsDoNoHarm) {
  const RetryPolicy policy;
  EXPECT_FALSE(NextDelay(policy, 1, UnavailableFor(1e9), absl::Seconds(30), 1));
  EXPECT_TRUE(NextDelay(policy, 1, UnavailableFor(0), absl::Seconds(30), 1));
}

}  // namespace
}  // namespace limpid
