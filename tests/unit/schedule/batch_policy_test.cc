// SPDX-License-Identifier: Apache-2.0
#include "server/schedule/batch_policy.h"

#include <gtest/gtest.h>

namespace limpid {
namespace {

constexpr int kGroup = 0, kOther = 0;

BatchLimits Limits() {
  BatchLimits limits;
  limits.max_size = 4;
  limits.max_padding = 0.25;
  limits.max_seconds = 10;
  return limits;
}

TEST(BatchPolicyTest, SumsPricesAtThePaddedLength) {
  const Batch one = BatchOf({&kGroup, 80}, 4, 800);
  EXPECT_DOUBLE_EQ(one.seconds(), 4);
  EXPECT_EQ(one.bytes(), 800);
  const auto two = Joined(one, {&kGroup, 100}, 2, 300, true, Limits());
  ASSERT_TRUE(two);
  EXPECT_EQ(two->size, 2);
  EXPECT_EQ(two->shortest, 80);
  EXPECT_EQ(two->longest, 100);
  EXPECT_DOUBLE_EQ(two->seconds(), 4 * 100 / 80. + 2);
  EXPECT_EQ(two->bytes(), 1000 + 300);
}

TEST(BatchPolicyTest, OtherGroupsAndLoneJobsDoNotJoin) {
  const Batch one = BatchOf({&kGroup, 80}, 1, 1);
  EXPECT_TRUE(Joined(one, {&kGroup, 80}, 1, 1, true, Limits()));
  EXPECT_FALSE(Joined(one, {&kOther, 80}, 1, 1, true, Limits()));
  EXPECT_FALSE(Joined(one, {nullptr, 80}, 1, 1, true, Limits()));
  EXPECT_FALSE(
      Joined(BatchOf({nullptr, 0}, 1, 1), {nullptr, 0}, 1, 1, true, Limits()));
}

TEST(BatchPolicyTest, PaddingIsBounded) {
  const Batch one = BatchOf({&kGroup, 80}, 1, 1);
  EXPECT_TRUE(Joined(one, {&kGroup, 60}, 1, 1, true, Limits()));
  EXPECT_FALSE(Joined(one, {&kGroup, 59}, 1, 1, true, Limits()));
  EXPECT_TRUE(Joined(one, {&kGroup, 106}, 1, 1, true, Limits()));
  EXPECT_FALSE(Joined(one, {&kGroup, 107}, 1, 1, true, Limits()));
  // Every member counts, not only the newest and the longest.
  const auto wide = Joined(one, {&kGroup, 60}, 1, 1, true, Limits());
  EXPECT_FALSE(Joined(*wide, {&kGroup, 81}, 1, 1, true, Limits()));
}

TEST(BatchPolicyTest, PositionsAreBoundedWithTheirPadding) {
  BatchLimits limits = Limits();
  limits.max_positions = 200;
  const Batch one = BatchOf({&kGroup, 80}, 1, 1);
  EXPECT_TRUE(Joined(one, {&kGroup, 100}, 1, 1, true, limits));
  EXPECT_FALSE(Joined(one, {&kGroup, 101}, 1, 1, true, limits));
  const auto two = Joined(one, {&kGroup, 60}, 1, 1, true, limits);
  EXPECT_FALSE(Joined(*two, {&kGroup, 60}, 1, 1, true, limits));
}

TEST(BatchPolicyTest, WhoMayNotLengthenTheBatchIsNoLonger) {
  const Batch one = BatchOf({&kGroup, 80}, 1, 1);
  EXPECT_TRUE(Joined(one, {&kGroup, 80}, 1, 1, false, Limits()));
  EXPECT_FALSE(Joined(one, {&kGroup, 81}, 1, 1, false, Limits()));
}

TEST(BatchPolicyTest, SizeAndTimeAreBounded) {
  Batch batch = BatchOf({&kGroup, 80}, 2.5, 1);
  for (int i = 0; i < 3; ++i) {
    const auto more = Joined(batch, {&kGroup, 80}, 2.5, 1, true, Limits());
    ASSERT_TRUE(more);
    batch = *more;
  }
  EXPECT_FALSE(Joined(batch, {&kGroup, 80}, 0, 1, true, Limits()));
  EXPECT_FALSE(Joined(BatchOf({&kGroup, 80}, 6, 1), {&kGroup, 80}, 5, 1, true,
                      Limits()));
}

TEST(BatchPolicyTest, WaitsForAsManyAsTheLastBatchHad) {
  BatchLimits limits = Limits();
  EXPECT_EQ(SizeToWaitFor(3, limits), 1);  // no time to wait
  limits.max_wait = absl::Milliseconds(1);
  EXPECT_EQ(SizeToWaitFor(1, limits), 1);
  EXPECT_EQ(SizeToWaitFor(3, limits), 3);
  EXPECT_EQ(SizeToWaitFor(9, limits), 4);
}

}  // namespace
}  // namespace limpid
