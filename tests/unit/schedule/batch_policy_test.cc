// SPDX-License-Identifier: Apache-2.0
#include "server/schedule/batch_policy.h"

#include <gtest/gtest.h>

namespace limpid {
namespace {

constexpr int kGroup = 0, kOther = 0;

BatchLimits Limits() {
  BatchLimits limits;
  limits.max_size = 4;
  limits.max_seconds = 10;
  return limits;
}

TEST(BatchPolicyTest, MembersAddUp) {
  const Batch one = BatchOf({&kGroup, 80}, 4);
  EXPECT_DOUBLE_EQ(one.seconds, 4);
  const auto two = Joined(one, {&kGroup, 1}, 0.5, true, Limits());
  ASSERT_TRUE(two);
  const auto three = Joined(*two, {&kGroup, 300}, 2, true, Limits());
  ASSERT_TRUE(three);
  EXPECT_EQ(three->group, &kGroup);
  EXPECT_EQ(three->size, 3);
  EXPECT_EQ(three->positions, 381);
  EXPECT_EQ(three->longest, 300);
  EXPECT_DOUBLE_EQ(three->seconds, 6.5);
}

TEST(BatchPolicyTest, OtherGroupsAndLoneJobsDoNotJoin) {
  const Batch one = BatchOf({&kGroup, 80}, 1);
  EXPECT_TRUE(Joined(one, {&kGroup, 80}, 1, true, Limits()));
  EXPECT_FALSE(Joined(one, {&kOther, 80}, 1, true, Limits()));
  EXPECT_FALSE(Joined(one, {nullptr, 80}, 1, true, Limits()));
  EXPECT_FALSE(
      Joined(BatchOf({nullptr, 0}, 1), {nullptr, 0}, 1, true, Limits()));
}

TEST(BatchPolicyTest, PositionsAreBounded) {
  BatchLimits limits = Limits();
  limits.max_positions = 200;
  const Batch one = BatchOf({&kGroup, 80}, 1);
  EXPECT_TRUE(Joined(one, {&kGroup, 120}, 1, true, limits));
  EXPECT_FALSE(Joined(one, {&kGroup, 121}, 1, true, limits));
  const auto two = Joined(one, {&kGroup, 60}, 1, true, limits);
  EXPECT_TRUE(Joined(*two, {&kGroup, 60}, 1, true, limits));
  EXPECT_FALSE(Joined(*two, {&kGroup, 61}, 1, true, limits));
  // A single one may be longer, and is then alone.
  EXPECT_FALSE(
      Joined(BatchOf({&kGroup, 300}, 1), {&kGroup, 1}, 1, true, limits));
}

TEST(BatchPolicyTest, WhoMayNotLengthenTheBatchIsNoLonger) {
  const Batch one = BatchOf({&kGroup, 80}, 1);
  EXPECT_TRUE(Joined(one, {&kGroup, 80}, 1, false, Limits()));
  EXPECT_FALSE(Joined(one, {&kGroup, 81}, 1, false, Limits()));
}

TEST(BatchPolicyTest, SizeAndTimeAreBounded) {
  Batch batch = BatchOf({&kGroup, 80}, 2.5);
  for (int i = 0; i < 3; ++i) {
    const auto more = Joined(batch, {&kGroup, 80}, 2.5, true, Limits());
    ASSERT_TRUE(more);
    batch = *more;
  }
  EXPECT_FALSE(Joined(batch, {&kGroup, 80}, 0, true, Limits()));
  EXPECT_FALSE(
      Joined(BatchOf({&kGroup, 80}, 6), {&kGroup, 80}, 5, true, Limits()));
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
