// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/reset_meter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <utility>

namespace limpid {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

// Of 100 a second, 10 streams at the same time per connection.
class ResetMeterTest : public ::testing::Test {
 protected:
  ResetMeterTest() { LookAfter(absl::ZeroDuration()); }

  // Hosts that went beyond.
  std::vector<std::string> LookAfter(absl::Duration step) {
    now_ += step;
    std::vector<std::string> hosts;
    for (auto& offender : meter_.Look(connections_, now_)) {
      EXPECT_GT(offender.num_resets, 0);
      hosts.push_back(std::move(offender.host));
    }
    return hosts;
  }

  ResetMeter meter_{100, 10};
  std::vector<StreamCounts> connections_;
  absl::Time now_ = absl::UnixEpoch();
};

TEST_F(ResetMeterTest, ManyResetsAtOnceAreTooMany) {
  connections_ = {{1, "a", 211, 0}, {2, "b", 1000000, 999990}};
  EXPECT_THAT(LookAfter(absl::Milliseconds(10)), ElementsAre("a"));
}

TEST_F(ResetMeterTest, StreamsThatMayStillRunDoNotCount) {
  for (int id = 1; id <= 100; ++id) connections_.push_back({id, "a", 10, 0});
  EXPECT_THAT(LookAfter(absl::Milliseconds(10)), IsEmpty());
}

TEST_F(ResetMeterTest, ConnectionsOfOnePeerAddUp) {
  for (int id = 1; id <= 10; ++id) connections_.push_back({id, "a", 31, 0});
  EXPECT_THAT(LookAfter(absl::Milliseconds(10)), ElementsAre("a"));
}

TEST_F(ResetMeterTest, TheLimitItselfIsAllowedForEver) {
  connections_ = {{1, "a", 10, 0}};
  for (int second = 0; second < 100; ++second) {
    connections_[0].started += 100;
    EXPECT_THAT(LookAfter(absl::Seconds(1)), IsEmpty());
  }
}

TEST_F(ResetMeterTest, SlightlyMoreIsFoundInTheEnd) {
  connections_ = {{1, "a", 10, 0}};
  int seconds = 0;
  for (bool found = false; !found && seconds < 100; ++seconds) {
    connections_[0].started += 120;
    found = !LookAfter(absl::Seconds(1)).empty();
  }
  EXPECT_EQ(seconds, 6);  // 20 more each time; more than 100 are too many
}

TEST_F(ResetMeterTest, OldResetsAreNotHeldAgainstAPeer) {
  connections_ = {{1, "a", 100000, 0}};
  EXPECT_THAT(LookAfter(absl::Hours(1)), IsEmpty());
  EXPECT_THAT(LookAfter(absl::Milliseconds(10)), IsEmpty());
}

TEST_F(ResetMeterTest, AnOffenderBeginsAnewAfterItWasNamed) {
  connections_ = {{1, "a", 10000, 0}};
  EXPECT_THAT(LookAfter(absl::Milliseconds(10)), ElementsAre("a"));
  EXPECT_THAT(LookAfter(absl::Milliseconds(10)), IsEmpty());
}

}  // namespace
}  // namespace limpid
