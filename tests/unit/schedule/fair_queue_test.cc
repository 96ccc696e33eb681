// SPDX-License-Identifier: Apache-2.0
#include "server/schedule/fair_queue.h"

#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <vector>

namespace limpid {
namespace {

class FairQueueTest : public ::testing::Test {
 protected:
  JobId Push(FairQueue& queue, const std::string& client, double seconds = 1,
             Priority priority = Priority::kNormal, int64_t bytes = 0) {
    const Ticket ticket{++last_id_, client, priority, seconds, bytes};
    EXPECT_EQ(queue.Decide(ticket), Admission::kAccept);
    queue.Push(ticket);
    return last_id_;
  }
  // Runs jobs one after the other until none is left.
  std::vector<JobId> Order(FairQueue& queue) {
    std::vector<JobId> order;
    while (const auto id = queue.Pick()) {
      order.push_back(*id);
      queue.End(*id);
    }
    return order;
  }

  JobId last_id_ = 0;
};

TEST_F(FairQueueTest, KeepsTheOrderOfAClientsJobs) {
  FairQueue queue({});
  for (int i = 0; i < 4; ++i) Push(queue, "a", 4 - i);
  EXPECT_EQ(Order(queue), (std::vector<JobId>{1, 2, 3, 4}));
}

TEST_F(FairQueueTest, AFloodDelaysAnotherClientByOneJobAtMost) {
  FairQueue queue({});
  for (int i = 0; i < 50; ++i) Push(queue, "flood");
  EXPECT_EQ(queue.Pick(), 1u);
  const JobId other = Push(queue, "other");
  queue.End(1);
  EXPECT_EQ(queue.Pick(), other);
}

TEST_F(FairQueueTest, PausedJobsLeaveTheirWorkerToOthers) {
  QueueLimits limits;
  limits.max_paused = 1;
  FairQueue queue(limits);
  for (int i = 0; i < 3; ++i) Push(queue, "a");
  EXPECT_EQ(queue.Pick(), 1u);
  EXPECT_EQ(queue.Pick(), std::nullopt);
  queue.SetPaused(1, true);
  EXPECT_EQ(queue.Pick(), 2u);
  // No more than max_paused beyond the workers, whoever pauses.
  queue.SetPaused(2, true);
  EXPECT_EQ(queue.Pick(), std::nullopt);
  // One that goes on needs its worker again.
  queue.End(2);
  queue.SetPaused(1, false);
  EXPECT_EQ(queue.Pick(), std::nullopt);
  queue.End(1);
  EXPECT_EQ(queue.Pick(), 3u);
}

TEST_F(FairQueueTest, ClientsWhoseJobsPauseHoldUpNobodyElse) {
  QueueLimits limits;
  limits.max_paused = 10;
  limits.max_paused_of_client = 1;
  FairQueue queue(limits);
  for (int i = 0; i < 3; ++i) Push(queue, "slow");
  const JobId other = Push(queue, "other", 5);
  EXPECT_EQ(queue.Pick(), 1u);
  queue.SetPaused(1, true);
  EXPECT_EQ(queue.Pick(), other);
  queue.End(other);
  EXPECT_EQ(queue.Pick(), std::nullopt);
  queue.End(1);
  EXPECT_EQ(queue.Pick(), 2u);
}

TEST_F(FairQueueTest, ClientsShareByCostNotByCount) {
  FairQueue queue({});
  std::vector<JobId> large, small;
  for (int i = 0; i < 3; ++i) large.push_back(Push(queue, "large", 4));
  for (int i = 0; i < 12; ++i) small.push_back(Push(queue, "small", 1));
  // While one of the large runs, four of the small ones are due.
  const std::vector<JobId> order = Order(queue);
  EXPECT_EQ(order[0], large[0]);
  EXPECT_EQ((std::vector<JobId>(order.begin() + 1, order.begin() + 5)),
            (std::vector<JobId>(small.begin(), small.begin() + 4)));
  EXPECT_EQ(order[5], large[1]);
}

TEST_F(FairQueueTest, WhatRunsCountsAgainstItsClientsNextJob) {
  FairQueue queue({});
  const JobId running = Push(queue, "a", 100);
  EXPECT_EQ(queue.Pick(), running);
  Push(queue, "a", 100);
  const JobId other = Push(queue, "b", 1);
  queue.End(running);
  EXPECT_EQ(queue.Pick(), other);
}

TEST_F(FairQueueTest, HigherPrioritiesGoFirst) {
  FairQueue queue({});
  const JobId low = Push(queue, "a", 1, Priority::kLow);
  const JobId normal = Push(queue, "a");
  const JobId high = Push(queue, "b", 100, Priority::kHigh);
  EXPECT_EQ(Order(queue), (std::vector<JobId>{high, normal, low}));
}

TEST_F(FairQueueTest, StartsOnlyAsManyAsMayRun) {
  QueueLimits limits;
  limits.max_running = 2;
  FairQueue queue(limits);
  for (int i = 0; i < 3; ++i) Push(queue, "a");
  EXPECT_TRUE(queue.Pick());
  EXPECT_TRUE(queue.Pick());
  EXPECT_FALSE(queue.Pick());
  queue.End(2);
  EXPECT_EQ(queue.Pick(), 3u);
}

TEST_F(FairQueueTest, SmallJobsPassOneThatWaitsForMemoryButNotForEver) {
  QueueLimits limits;
  limits.max_running = 4;
  limits.max_running_bytes = 10;
  FairQueue queue(limits);
  const JobId first = Push(queue, "a", 1, Priority::kNormal, 4);
  EXPECT_EQ(queue.Pick(), first);
  const JobId large = Push(queue, "b", 1, Priority::kHigh, 10);
  for (int i = 0; i < 20; ++i) Push(queue, "c", 1, Priority::kNormal, 1);
  int num_overtakes = 0;
  while (const auto id = queue.Pick()) {
    EXPECT_NE(*id, large);
    queue.End(*id);
    ++num_overtakes;
  }
  EXPECT_EQ(num_overtakes, 8);
  queue.End(first);
  EXPECT_EQ(queue.Pick(), large);
  EXPECT_EQ(queue.running_bytes(), 10);
  EXPECT_FALSE(queue.Pick());
}

TEST_F(FairQueueTest, RefusesBeyondItsLimits) {
  QueueLimits limits;
  limits.max_running = 1;
  limits.max_waiting = 4;
  limits.max_waiting_of_client = 2;
  limits.max_waiting_seconds = 10.2;
  limits.max_running_bytes = 100;
  FairQueue queue(limits);
  // An idle worker will take one at once.
  for (int i = 0; i < 3; ++i) Push(queue, "a");
  EXPECT_EQ(queue.Decide({99, "a"}), Admission::kClientQueueFull);
  EXPECT_EQ(queue.Pick(), 1u);
  EXPECT_EQ(queue.Decide({99, "a"}), Admission::kClientQueueFull);
  EXPECT_EQ(queue.Decide({99, "b", Priority::kHigh, 8.5}),
            Admission::kQueueTooLong);
  EXPECT_EQ(queue.Decide({99, "b", Priority::kHigh, 1, 101}),
            Admission::kTooLarge);
  Push(queue, "b", 8);
  Push(queue, "b", 0);
  EXPECT_EQ(queue.Decide({99, "c"}), Admission::kQueueFull);
}

TEST_F(FairQueueTest, AnEmptyQueueTakesAJobOfAnyLength) {
  QueueLimits limits;
  limits.max_waiting_seconds = 10;
  FairQueue queue(limits);
  Push(queue, "a", 1e6);
}

TEST_F(FairQueueTest, RemovedJobsNeitherRunNorCount) {
  FairQueue queue({});
  const JobId first = Push(queue, "a", 5);
  const JobId second = Push(queue, "a", 5);
  const JobId other = Push(queue, "b", 1);
  EXPECT_TRUE(queue.Remove(first));
  EXPECT_FALSE(queue.Remove(first));
  EXPECT_DOUBLE_EQ(queue.waiting_seconds(), 6);
  EXPECT_EQ(Order(queue), (std::vector<JobId>{second, other}));
  EXPECT_EQ(queue.num_waiting(), 0);
  EXPECT_EQ(queue.waiting_seconds(), 0);
}

TEST_F(FairQueueTest, MeaninglessEstimatesCountAsTiny) {
  FairQueue queue({});
  const JobId nan = Push(queue, "a", std::numeric_limits<double>::quiet_NaN());
  const JobId negative = Push(queue, "b", -1);
  EXPECT_GT(queue.waiting_seconds(), 0);
  EXPECT_LT(queue.waiting_seconds(), 0.01);
  EXPECT_EQ(Order(queue), (std::vector<JobId>{nan, negative}));
}

class FairQueueBatchTest : public FairQueueTest {
 protected:
  FairQueueBatchTest() {
    batch_.max_size = 4;
    batch_.max_seconds = 100;
  }
  JobId PushTo(FairQueue& queue, const std::string& client, int64_t length = 80,
               Priority priority = Priority::kNormal, int64_t bytes = 0,
               const void* group = &kGroup) {
    Ticket ticket{++last_id_, client, priority, 1, bytes};
    ticket.batch = {group, length};
    EXPECT_EQ(queue.Decide(ticket), Admission::kAccept);
    queue.Push(ticket);
    return last_id_;
  }

  static constexpr int kGroup = 0;
  BatchLimits batch_;
};

TEST_F(FairQueueBatchTest, CompanionsJoinInTheFairOrder) {
  FairQueue queue({});
  for (int i = 0; i < 3; ++i) PushTo(queue, "a");  // 1, 2, 3
  for (int i = 0; i < 3; ++i) PushTo(queue, "b");  // 4, 5, 6
  EXPECT_EQ(queue.Pick(), 1u);
  EXPECT_EQ(queue.PickCompanions(1, batch_), (std::vector<JobId>{4, 2, 5}));
  EXPECT_EQ(queue.num_running(), 4);
  EXPECT_EQ(queue.Pick(), std::nullopt);  // the batch holds the worker
  for (const JobId id : {1, 4, 2, 5}) queue.End(id);
  EXPECT_EQ(queue.num_running(), 0);
  EXPECT_EQ(queue.Pick(), 3u);
}

TEST_F(FairQueueBatchTest, CompanionsAreChargedToTheirOwnClients) {
  FairQueue queue({});
  for (int i = 0; i < 3; ++i) PushTo(queue, "a");  // 1, 2, 3
  for (int i = 0; i < 2; ++i) Push(queue, "b");    // 4, 5: not batched
  EXPECT_EQ(queue.Pick(), 1u);
  EXPECT_EQ(queue.PickCompanions(1, batch_), (std::vector<JobId>{2, 3}));
  for (const JobId id : {1, 2, 3}) queue.End(id);
  const JobId late = PushTo(queue, "a");
  EXPECT_EQ(Order(queue), (std::vector<JobId>{4, 5, late}));
}

TEST_F(FairQueueBatchTest, AClientsJobsKeepTheirOrder) {
  FairQueue queue({});
  PushTo(queue, "a");
  Push(queue, "a");  // runs alone
  PushTo(queue, "a");
  EXPECT_EQ(queue.Pick(), 1u);
  EXPECT_TRUE(queue.PickCompanions(1, batch_).empty());
}

TEST_F(FairQueueBatchTest, LowPrioritiesDoNotLengthenABatch) {
  FairQueue queue({});
  PushTo(queue, "a", 80, Priority::kHigh);
  PushTo(queue, "b", 81, Priority::kLow);
  const JobId fits = PushTo(queue, "c", 80, Priority::kLow);
  const JobId longer = PushTo(queue, "d", 90, Priority::kHigh);
  EXPECT_EQ(queue.Pick(), 1u);
  batch_.max_size = 2;
  EXPECT_EQ(queue.PickCompanions(1, batch_), (std::vector<JobId>{longer}));
  FairQueue other({});
  PushTo(other, "a", 80, Priority::kHigh);
  PushTo(other, "b", 81, Priority::kLow);
  PushTo(other, "c", 80, Priority::kLow);
  const JobId head = *other.Pick();
  EXPECT_EQ(other.PickCompanions(head, batch_), (std::vector<JobId>{last_id_}));
  EXPECT_EQ(fits, 3u);
}

TEST_F(FairQueueBatchTest, LeavesJobsToWorkersThatAreFree) {
  QueueLimits limits;
  limits.max_running = 2;
  FairQueue queue(limits);
  for (int i = 0; i < 3; ++i) PushTo(queue, "a");
  EXPECT_EQ(queue.Pick(), 1u);
  EXPECT_EQ(queue.PickCompanions(1, batch_), (std::vector<JobId>{2}));
  EXPECT_EQ(queue.Pick(), 3u);
}

TEST_F(FairQueueBatchTest, MembersFitInMemoryTogether) {
  QueueLimits limits;
  limits.max_running_bytes = 200;
  FairQueue queue(limits);
  PushTo(queue, "a", 80, Priority::kNormal, 80);
  PushTo(queue, "b", 20, Priority::kNormal, 20);
  PushTo(queue, "b", 101, Priority::kNormal, 101);
  const JobId fits = PushTo(queue, "c", 100, Priority::kNormal, 100);
  EXPECT_EQ(queue.Pick(), 1u);
  EXPECT_EQ(queue.PickCompanions(1, batch_), (std::vector<JobId>{2, fits}));
  EXPECT_EQ(queue.running_bytes(), 200);
}

TEST_F(FairQueueBatchTest, NobodyJoinsWhileTheFirstInLineWaitsForMemory) {
  QueueLimits limits;
  limits.max_running_bytes = 100;
  FairQueue queue(limits);
  PushTo(queue, "a", 80, Priority::kNormal, 40);
  EXPECT_EQ(queue.Pick(), 1u);
  PushTo(queue, "b", 80, Priority::kHigh, 90);
  PushTo(queue, "c", 80, Priority::kNormal, 40);
  EXPECT_TRUE(queue.PickCompanions(1, batch_).empty());
}

TEST_F(FairQueueBatchTest, MayGrowWhileItWaits) {
  FairQueue queue({});
  PushTo(queue, "a", 80, Priority::kNormal, 80);
  EXPECT_EQ(queue.Pick(), 1u);
  EXPECT_TRUE(queue.PickCompanions(1, batch_).empty());
  PushTo(queue, "a", 100, Priority::kNormal, 100);
  EXPECT_EQ(queue.PickCompanions(1, batch_), (std::vector<JobId>{2}));
  EXPECT_EQ(queue.running_bytes(), 180);
  queue.SetPaused(1, true);  // batches don't
  EXPECT_EQ(queue.num_paused(), 0);
  queue.End(2);
  queue.End(1);
  EXPECT_EQ(queue.running_bytes(), 0);
}

class FairQueueDevicesTest : public FairQueueTest {
 protected:
  // Two devices with a worker each; two models of which each is on one.
  static QueueLimits Limits() {
    QueueLimits limits;
    limits.num_devices = 2;
    limits.max_running_bytes = 10;
    return limits;
  }
  JobId PushOn(FairQueue& queue, const DeviceSet* devices, int64_t bytes = 0) {
    Ticket ticket{++last_id_, "a", Priority::kNormal, 1, bytes};
    ticket.model = devices == &first_ ? "first" : "second";
    ticket.devices = devices;
    EXPECT_EQ(queue.Decide(ticket), Admission::kAccept);
    queue.Push(ticket);
    return last_id_;
  }

  DeviceSet first_{0}, second_{1};
};

TEST_F(FairQueueDevicesTest, EachHasItsOwnWorkers) {
  FairQueue queue(Limits());
  for (int i = 0; i < 3; ++i) PushOn(queue, nullptr);
  EXPECT_EQ(queue.Pick(0), 1u);
  EXPECT_EQ(queue.Pick(0), std::nullopt);
  EXPECT_EQ(queue.Pick(1), 2u);
  EXPECT_EQ(queue.Pick(1), std::nullopt);
  EXPECT_EQ(queue.num_running_on(1), 1);
  queue.End(2);
  EXPECT_EQ(queue.num_running_on(1), 0);
  EXPECT_EQ(queue.Pick(1), 3u);
}

TEST_F(FairQueueDevicesTest, JobsThatCanNotRunHereDoNotHoldUpThoseBehindThem) {
  FairQueue queue(Limits());
  PushOn(queue, &first_);
  PushOn(queue, &first_);
  PushOn(queue, &second_);
  EXPECT_EQ(queue.Pick(1), 3u);
  EXPECT_EQ(queue.Pick(1), std::nullopt);
  EXPECT_EQ(queue.Pick(0), 1u);
  queue.End(1);
  EXPECT_EQ(queue.Pick(0), 2u);
}

TEST_F(FairQueueDevicesTest, AJobGoesWhereLeastIsToDo) {
  QueueLimits limits = Limits();
  limits.max_running = 4;
  FairQueue queue(limits);
  for (const double seconds : {5, 1, 1, 1}) {
    queue.Push({++last_id_, "a", Priority::kNormal, seconds});
  }
  EXPECT_EQ(queue.Pick(0), 1u);
  EXPECT_EQ(queue.Pick(0), std::nullopt) << "the other one has nothing to do";
  EXPECT_EQ(queue.Pick(1), 2u);
  EXPECT_EQ(queue.Pick(0), std::nullopt);
  EXPECT_EQ(queue.Pick(1), 3u);
  queue.End(1);
  EXPECT_EQ(queue.Pick(1), std::nullopt);
  EXPECT_EQ(queue.Pick(0), 4u);
}

TEST_F(FairQueueDevicesTest, WhatSharesADeviceWhileAnotherIsIdleIsTold) {
  QueueLimits limits = Limits();
  limits.max_running = 4;
  FairQueue queue(limits);
  PushOn(queue, &first_);
  EXPECT_EQ(queue.Pick(0), 1u);
  EXPECT_TRUE(queue.Starved().empty()) << "it has the device for itself";
  PushOn(queue, &first_);
  EXPECT_EQ(queue.Pick(0), 2u);
  EXPECT_EQ(queue.Starved(), (std::map<std::string, double>{{"first", 2}}));
  PushOn(queue, &second_);
  EXPECT_EQ(queue.Pick(1), 3u);
  EXPECT_TRUE(queue.Starved().empty());
}

TEST_F(FairQueueDevicesTest, EachHasItsOwnMemory) {
  FairQueue queue(Limits());
  PushOn(queue, nullptr, 10);
  PushOn(queue, nullptr, 10);
  EXPECT_EQ(queue.Pick(0), 1u);
  EXPECT_EQ(queue.Pick(1), 2u);
  EXPECT_EQ(queue.running_bytes(0), 10);
  EXPECT_EQ(queue.running_bytes(1), 10);
  queue.End(1);
  EXPECT_EQ(queue.running_bytes(0), 0);
}

TEST_F(FairQueueDevicesTest, CompanionsLeaveJobsToFreeWorkersElsewhere) {
  FairQueue queue(Limits());
  BatchLimits batch;
  batch.max_size = 4;
  for (int i = 0; i < 4; ++i) {
    Ticket ticket{++last_id_, "a", Priority::kNormal, 0.01};
    ticket.batch = {&batch, 10};
    queue.Push(ticket);
  }
  EXPECT_EQ(queue.Pick(0), 1u);
  EXPECT_EQ(queue.PickCompanions(1, batch), (std::vector<JobId>{2, 3}));
  EXPECT_EQ(queue.Pick(1), 4u);
}

TEST_F(FairQueueDevicesTest, ModelsThatAreWantedElsewhereAreTold) {
  FairQueue queue(Limits());
  PushOn(queue, &first_);
  PushOn(queue, &first_);
  EXPECT_TRUE(queue.Starved().empty());  // a worker is free
  EXPECT_EQ(queue.Pick(0), 1u);
  EXPECT_EQ(queue.Starved(), (std::map<std::string, double>{{"first", 1}}));
  // A copy has come.
  first_.Add(1);
  EXPECT_TRUE(queue.Starved().empty());
  EXPECT_EQ(queue.Pick(1), 2u);
  // Nobody has nothing to do.
  PushOn(queue, &second_);
  EXPECT_TRUE(queue.Starved().empty());
}

}  // namespace
}  // namespace limpid
