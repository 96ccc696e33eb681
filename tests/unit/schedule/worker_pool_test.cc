// SPDX-License-Identifier: Apache-2.0
#include "server/schedule/worker_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <future>
#include <iterator>
#include <stdexcept>
#include <thread>

namespace limpid {
namespace {

// A clock that a test moves.
class FakeClock final : public Clock {
 public:
  absl::Time Now() const override { return absl::FromUnixSeconds(seconds); }
  std::atomic<int64_t> seconds{1000};
};

// A job that waits to be let go, and what became of it. Outlives its pool.
struct Waiter {
  Job MakeJob() {
    return {token, [this](const absl::Status& admission, int64_t) {
              ++num_ends;
              if (admission.ok()) {
                started.set_value();
                go.get_future().wait();
              }
              ended.set_value(admission);
            }};
  }
  CancelToken token;
  std::promise<void> started, go;
  std::promise<absl::Status> ended;
  std::atomic<int> num_ends{0};
};

class WorkerPoolTest : public ::testing::Test {
 protected:
  WorkerPoolOptions Options(int64_t workers, int64_t queue) {
    WorkerPoolOptions options;
    options.limits.max_running = workers;
    options.limits.max_waiting = queue;
    options.clock = &clock_;
    return options;
  }

  // Lets every worker run a job; returns when the pool is idle.
  static void Warm(WorkerPool& pool, int64_t workers) {
    std::vector<Waiter> waiters(workers);
    for (Waiter& waiter : waiters) {
      ASSERT_TRUE(pool.Submit(waiter.MakeJob()).ok());
    }
    for (Waiter& waiter : waiters) waiter.started.get_future().wait();
    for (Waiter& waiter : waiters) waiter.go.set_value();
    for (Waiter& waiter : waiters) waiter.ended.get_future().wait();
    while (pool.load().num_running > 0) std::this_thread::yield();
  }

  FakeClock clock_;
};

TEST_F(WorkerPoolTest, RunsJobsInOrder) {
  std::vector<int> order;
  {
    WorkerPool pool(Options(1, 10));
    for (int i = 0; i < 5; ++i) {
      ASSERT_TRUE(pool.Submit({CancelToken(),
                               [&order, i](const absl::Status&, int64_t) {
                                 order.push_back(i);
                               }})
                      .ok());
    }
    EXPECT_TRUE(pool.Drain(absl::InfiniteFuture(), absl::InfiniteFuture()));
  }
  EXPECT_EQ(order, (std::vector<int>{0, 1, 2, 3, 4}));
}

TEST_F(WorkerPoolTest, PausedJobsLeaveTheirWorkerToOthers) {
  Waiter first, second, third;
  WorkerPoolOptions options = Options(1, 10);
  options.limits.max_paused = 4;
  WorkerPool pool(options);
  const auto paused = pool.Submit(first.MakeJob());
  ASSERT_TRUE(paused.ok());
  first.started.get_future().wait();
  ASSERT_TRUE(pool.Submit(second.MakeJob()).ok());
  ASSERT_TRUE(pool.Submit(third.MakeJob()).ok());
  pool.Pause(*paused);
  second.started.get_future().wait();
  EXPECT_EQ(pool.load().num_running, 2);
  pool.Resume(*paused);
  // Two run, one is allowed: the end of one does not start another.
  second.go.set_value();
  EXPECT_TRUE(second.ended.get_future().get().ok());
  first.go.set_value();
  third.started.get_future().wait();
  EXPECT_TRUE(first.ended.get_future().get().ok());
  third.go.set_value();
  EXPECT_TRUE(pool.Drain(absl::InfiniteFuture(), absl::InfiniteFuture()));
}

// Of this process.
int64_t NumThreads() {
  return std::distance(std::filesystem::directory_iterator("/proc/self/task"),
                       {});
}

TEST_F(WorkerPoolTest, ThreadsThatStoodInForPausedJobsLeave) {
  Waiter first, second;
  WorkerPoolOptions options = Options(1, 10);
  options.limits.max_paused = 4;
  WorkerPool pool(options);
  const int64_t before = NumThreads();
  const auto paused = pool.Submit(first.MakeJob());
  ASSERT_TRUE(paused.ok());
  first.started.get_future().wait();
  pool.Pause(*paused);
  EXPECT_EQ(NumThreads(), before + 1);
  pool.Resume(*paused);
  first.go.set_value();
  const auto limit =
      std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (NumThreads() > before) {
    ASSERT_LT(std::chrono::steady_clock::now(), limit);
    std::this_thread::yield();
  }
  // Enough are left.
  second.go.set_value();
  ASSERT_TRUE(pool.Submit(second.MakeJob()).ok());
  EXPECT_TRUE(second.ended.get_future().get().ok());
}

TEST_F(WorkerPoolTest, RefusesWhenTheQueueIsFull) {
  Waiter running, waiting, refused;
  WorkerPool pool(Options(1, 1));
  ASSERT_TRUE(pool.Submit(running.MakeJob()).ok());
  running.started.get_future().wait();
  ASSERT_TRUE(pool.Submit(waiting.MakeJob()).ok());
  EXPECT_EQ(GetErrorDetails(pool.Submit(refused.MakeJob()).status()).reason,
            "QUEUE_FULL");
  EXPECT_EQ(refused.num_ends, 0);
  running.go.set_value();
  waiting.go.set_value();
  EXPECT_TRUE(waiting.ended.get_future().get().ok());
}

TEST_F(WorkerPoolTest, CancellingAWaitingJobEndsItAtOnceAndFreesItsPlace) {
  Waiter running, waiting, next;
  WorkerPool pool(Options(1, 1));
  ASSERT_TRUE(pool.Submit(running.MakeJob()).ok());
  running.started.get_future().wait();
  const auto id = pool.Submit(waiting.MakeJob());
  ASSERT_TRUE(id.ok());
  pool.Cancel(*id);
  EXPECT_EQ(waiting.ended.get_future().get().code(),
            absl::StatusCode::kCancelled);
  EXPECT_TRUE(pool.Submit(next.MakeJob()).ok());
  pool.Cancel(*id);  // nothing left to do
  running.go.set_value();
  next.go.set_value();
  EXPECT_TRUE(pool.Drain(absl::InfiniteFuture(), absl::InfiniteFuture()));
  EXPECT_EQ(waiting.num_ends, 1);
}

TEST_F(WorkerPoolTest, CancellingARunningJobSetsItsToken) {
  Waiter running;
  WorkerPool pool(Options(1, 1));
  const auto id = pool.Submit(running.MakeJob());
  running.started.get_future().wait();
  pool.Cancel(*id);
  EXPECT_TRUE(running.token.cancelled());
  running.go.set_value();
}

TEST_F(WorkerPoolTest, JobsPastTheirDeadlineDoNotRun) {
  Waiter running, late;
  WorkerPool pool(Options(1, 2));
  late.token = CancelToken(clock_.Now() + absl::Seconds(5), clock_);
  ASSERT_TRUE(pool.Submit(running.MakeJob()).ok());
  running.started.get_future().wait();
  ASSERT_TRUE(pool.Submit(late.MakeJob()).ok());
  clock_.seconds += 6;
  running.go.set_value();
  EXPECT_EQ(late.ended.get_future().get().code(),
            absl::StatusCode::kDeadlineExceeded);
}

TEST_F(WorkerPoolTest, DeadlinesEndWaitingJobsAlthoughAllWorkersAreBusy) {
  Waiter running, late, too_long;
  WorkerPoolOptions options = Options(1, 2);
  options.clock = &Clock::Real();
  WorkerPool pool(options);
  ASSERT_TRUE(pool.Submit(running.MakeJob()).ok());
  running.started.get_future().wait();
  const absl::Time begin = absl::Now();
  Job job = too_long.MakeJob();
  job.cancel = CancelToken(begin + absl::Seconds(100));
  job.ticket.seconds = 399.8;  // hopeless in 50 ms
  ASSERT_TRUE(pool.Submit(std::move(job)).ok());
  late.token = CancelToken(begin + absl::Milliseconds(20));
  ASSERT_TRUE(pool.Submit(late.MakeJob()).ok());
  EXPECT_EQ(GetErrorDetails(late.ended.get_future().get()).reason,
            "DEADLINE_EXCEEDED");
  EXPECT_EQ(GetErrorDetails(too_long.ended.get_future().get()).reason,
            "DEADLINE_TOO_SHORT");
  EXPECT_LT(absl::Now(), begin + absl::Seconds(50));
  running.go.set_value();
}

TEST_F(WorkerPoolTest, JobsWithoutHopeOrCallerAreRefused) {
  Waiter waiter;
  WorkerPool pool(Options(1, 2));
  Job hopeless = waiter.MakeJob();
  hopeless.cancel = CancelToken(clock_.Now() + absl::Seconds(5), clock_);
  hopeless.ticket.seconds = 21;
  EXPECT_EQ(GetErrorDetails(pool.Submit(std::move(hopeless)).status()).reason,
            "DEADLINE_TOO_SHORT");
  waiter.token.Cancel();
  EXPECT_EQ(pool.Submit(waiter.MakeJob()).status().code(),
            absl::StatusCode::kCancelled);
  EXPECT_EQ(waiter.num_ends, 0);
}

TEST_F(WorkerPoolTest, RunsWhatFitsInMemoryAtTheSameTime) {
  Waiter first, second, large;
  WorkerPoolOptions options = Options(3, 3);
  options.limits.max_running_bytes = 10;
  WorkerPool pool(options);
  const auto submit = [&](Waiter& waiter, int64_t bytes) {
    Job job = waiter.MakeJob();
    job.ticket.bytes = bytes;
    EXPECT_TRUE(pool.Submit(std::move(job)).ok());
  };
  submit(first, 5);
  submit(second, 5);
  first.started.get_future().wait();
  second.started.get_future().wait();
  submit(large, 6);
  EXPECT_EQ(pool.load().num_waiting, 1);
  first.go.set_value();
  first.ended.get_future().wait();
  EXPECT_EQ(pool.load().num_waiting, 1);
  second.go.set_value();
  large.started.get_future().wait();
  large.go.set_value();
}

TEST_F(WorkerPoolTest, DrainingRefusesAndCancelsAtTheLimit) {
  Waiter waiting, refused;
  std::promise<void> started;
  CancelToken token;
  WorkerPool pool(Options(1, 2));
  ASSERT_TRUE(pool.Submit({token,
                           [&](const absl::Status&, int64_t) {
                             started.set_value();
                             while (!token.cancelled()) {
                               std::this_thread::yield();
                             }
                           }})
                  .ok());
  started.get_future().wait();
  ASSERT_TRUE(pool.Submit(waiting.MakeJob()).ok());
  EXPECT_TRUE(pool.Drain(absl::InfinitePast(), absl::InfiniteFuture()));
  EXPECT_EQ(GetErrorDetails(waiting.ended.get_future().get()).reason,
            "SERVER_DRAINING");
  EXPECT_EQ(pool.Submit(refused.MakeJob()).status().code(),
            absl::StatusCode::kUnavailable);
  EXPECT_EQ(refused.num_ends, 0);
}

TEST_F(WorkerPoolTest, DrainGivesUpOnJobsThatDoNotListen) {
  Waiter deaf;
  WorkerPool pool(Options(1, 2));
  ASSERT_TRUE(pool.Submit(deaf.MakeJob()).ok());
  deaf.started.get_future().wait();
  EXPECT_FALSE(pool.Drain(absl::InfinitePast(), absl::InfinitePast()));
  deaf.go.set_value();
}

TEST_F(WorkerPoolTest, SurvivesJobsThatThrow) {
  Waiter next;
  WorkerPool pool(Options(1, 2));
  ASSERT_TRUE(pool.Submit({CancelToken(),
                           [](const absl::Status&, int64_t) {
                             throw std::runtime_error("thrown");
                           }})
                  .ok());
  ASSERT_TRUE(pool.Submit(next.MakeJob()).ok());
  next.go.set_value();
  EXPECT_TRUE(next.ended.get_future().get().ok());
}

TEST_F(WorkerPoolTest, EveryAcceptedJobEndsExactlyOnceUnderRaces) {
  constexpr int kThreads = 4, kJobs = 500;
  std::vector<std::atomic<int>> ends(kThreads * kJobs);
  std::vector<std::atomic<bool>> accepted(kThreads * kJobs);
  {
    WorkerPool pool(Options(2, 8));
    std::vector<std::thread> threads;
    for (int t = 0; t < kThreads; ++t) {
      threads.emplace_back([&, t] {
        for (int i = 0; i < kJobs; ++i) {
          const int n = t * kJobs + i;
          OwnTurn turn;
          const auto id = pool.Submit(
              {CancelToken(),
               [&ends, n](const absl::Status&, int64_t) { ++ends[n]; }},
              i % 2 == 0 ? &turn : nullptr);
          accepted[n] = id.ok();
          if (id.ok() && i % 3 == 0) pool.Cancel(*id);
          if (turn) turn();
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
  }
  for (int n = 0; n < kThreads * kJobs; ++n) {
    EXPECT_EQ(ends[n], accepted[n] ? 1 : 0);
  }
}

TEST_F(WorkerPoolTest, AShortJobThatFindsThePoolIdleIsLeftToItsSubmitter) {
  std::thread::id ran_on;
  WorkerPool pool(Options(2, 10));
  Warm(pool, 2);
  const Job job = {CancelToken(), [&](const absl::Status& admission, int64_t) {
                     EXPECT_TRUE(admission.ok());
                     ran_on = std::this_thread::get_id();
                   }};
  for (int i = 0; i < 2; ++i) {
    Job again = job;
    again.ticket.id = NewJobId();
    OwnTurn turn;
    ASSERT_TRUE(pool.Submit(again, &turn).ok());
    ASSERT_TRUE(turn);
    EXPECT_EQ(pool.load().num_running, 1);
    EXPECT_EQ(pool.load().num_waiting, 0);
    EXPECT_EQ(ran_on, std::thread::id());
    turn();
    EXPECT_EQ(ran_on, std::this_thread::get_id());
    EXPECT_EQ(pool.load().num_running, 0);
    ran_on = {};
  }
}

TEST_F(WorkerPoolTest, WhoHasATurnHoldsUpNobodyElse) {
  Waiter lent, other, next;
  WorkerPool pool(Options(2, 10));
  Warm(pool, 2);
  OwnTurn turn;
  ASSERT_TRUE(pool.Submit(lent.MakeJob(), &turn).ok());
  ASSERT_TRUE(turn);
  std::thread submitter(turn);
  lent.started.get_future().wait();
  OwnTurn second;
  ASSERT_TRUE(pool.Submit(other.MakeJob(), &second).ok());
  EXPECT_FALSE(second);
  other.started.get_future().wait();
  // The turn takes the place of one of the two workers.
  ASSERT_TRUE(pool.Submit(next.MakeJob(), &second).ok());
  EXPECT_FALSE(second);
  EXPECT_EQ(pool.load().num_waiting, 1);
  lent.go.set_value();
  next.started.get_future().wait();
  other.go.set_value();
  next.go.set_value();
  submitter.join();
}

TEST_F(WorkerPoolTest, WorkersComeBeforeSubmitters) {
  WorkerPool pool(Options(3, 10));
  for (int i = 0; i < 3; ++i) {
    std::promise<void> ended;
    OwnTurn turn;
    ASSERT_TRUE(
        pool.Submit({CancelToken(),
                     [&](const absl::Status&, int64_t) { ended.set_value(); }},
                    &turn)
            .ok());
    EXPECT_FALSE(turn) << "job " << i;
    if (turn) turn();
    ended.get_future().wait();
    while (pool.load().num_running > 0) std::this_thread::yield();
  }
}

TEST_F(WorkerPoolTest, LongJobsAreNotLeftToTheirSubmitter) {
  Waiter waiter;
  WorkerPool pool(Options(1, 10));
  Warm(pool, 1);
  Job job = waiter.MakeJob();
  job.ticket.seconds = 0.1;
  OwnTurn turn;
  ASSERT_TRUE(pool.Submit(std::move(job), &turn).ok());
  EXPECT_FALSE(turn);
  waiter.go.set_value();
  EXPECT_TRUE(waiter.ended.get_future().get().ok());
}

TEST_F(WorkerPoolTest, CancellingReachesAJobThatIsLeftToItsSubmitter) {
  Waiter before;
  CancelToken token;
  std::promise<void> started;
  WorkerPool pool(Options(1, 10));
  Warm(pool, 1);
  OwnTurn turn;
  const auto id = pool.Submit(before.MakeJob(), &turn);
  ASSERT_TRUE(id.ok() && turn);
  pool.Cancel(*id);
  turn();
  EXPECT_TRUE(absl::IsCancelled(before.ended.get_future().get()));
  const auto running = pool.Submit({token,
                                    [&](const absl::Status&, int64_t) {
                                      started.set_value();
                                      while (token.Check().ok())
                                        std::this_thread::yield();
                                    }},
                                   &turn);
  ASSERT_TRUE(running.ok() && turn);
  std::thread submitter(turn);
  started.get_future().wait();
  pool.Cancel(*running);
  submitter.join();
}

TEST_F(WorkerPoolTest, ThePoolOutlivesATurn) {
  std::atomic<bool> ended{false};
  std::promise<void> started;
  std::thread submitter;
  {
    WorkerPool pool(Options(1, 10));
    Warm(pool, 1);
    OwnTurn turn;
    ASSERT_TRUE(pool.Submit({CancelToken(),
                             [&](const absl::Status&, int64_t) {
                               started.set_value();
                               std::this_thread::sleep_for(
                                   std::chrono::milliseconds(50));
                               ended = true;
                             }},
                            &turn)
                    .ok());
    ASSERT_TRUE(turn);
    submitter = std::thread(turn);
    started.get_future().wait();
  }
  EXPECT_TRUE(ended);
  submitter.join();
}

TEST_F(WorkerPoolTest, JobsRunOnTheDevicesThatTheyCanRunOn) {
  WorkerPoolOptions options = Options(1, 100);
  options.limits.num_devices = 2;
  const DeviceSet second(1);
  std::atomic<int> num_on_second{0}, num_elsewhere{0};
  Waiter first;
  {
    WorkerPool pool(options);
    Job job = first.MakeJob();
    const DeviceSet only_first(0);
    job.ticket.devices = &only_first;
    ASSERT_TRUE(pool.Submit(std::move(job)).ok());
    first.started.get_future().wait();
    // Behind one that waits for the first device, which is busy.
    Waiter blocked;
    Job waits = blocked.MakeJob();
    waits.ticket.devices = &only_first;
    waits.ticket.model = "m";
    ASSERT_TRUE(pool.Submit(std::move(waits)).ok());
    std::promise<void> all_ran;
    for (int i = 0; i < 8; ++i) {
      Job here{CancelToken(), [&](const absl::Status& status, int64_t device) {
                 EXPECT_TRUE(status.ok());
                 ++(device == 1 ? num_on_second : num_elsewhere);
                 if (num_on_second + num_elsewhere == 8) all_ran.set_value();
               }};
      here.ticket.devices = &second;
      ASSERT_TRUE(pool.Submit(std::move(here)).ok());
    }
    all_ran.get_future().wait();
    // The last of them may still be on its worker.
    while (pool.Starved().empty()) std::this_thread::yield();
    EXPECT_EQ(pool.Starved().begin()->first, "m");
    first.go.set_value();
    blocked.go.set_value();
    blocked.ended.get_future().wait();
  }
  EXPECT_EQ(num_on_second, 8);
  EXPECT_EQ(num_elsewhere, 0);
}

TEST_F(WorkerPoolTest, AJobMovesToADeviceThatItsModelHasCometo) {
  WorkerPoolOptions options = Options(1, 100);
  options.limits.num_devices = 2;
  DeviceSet devices(0);
  Waiter first, second;
  WorkerPool pool(options);
  for (Waiter* waiter : {&first, &second}) {
    Job job = waiter->MakeJob();
    job.ticket.devices = &devices;
    ASSERT_TRUE(pool.Submit(std::move(job)).ok());
    if (waiter == &first) first.started.get_future().wait();
  }
  EXPECT_EQ(pool.load().num_waiting, 1);
  devices.Add(1);
  pool.OnModelPlaced();
  second.started.get_future().wait();
  first.go.set_value();
  second.go.set_value();
  first.ended.get_future().wait();
  second.ended.get_future().wait();
}

// What batches have run, by how large they were.
struct BatchLog {
  void Add(size_t size) {
    MutexLock lock(mutex);
    sizes.push_back(size);
    changed.notify_all();
  }
  void WaitFor(size_t num_batches) {
    MutexLock lock(mutex);
    while (sizes.size() < num_batches) lock.Wait(changed);
  }
  Mutex mutex;
  std::condition_variable changed;
  std::vector<size_t> sizes;
};

// A job that can share a batch, and how often it has ended.
struct Member final : BatchWork {
  Member(BatchLog& to, std::atomic<int>& ends) : log(to), num_ends(ends) {}
  void RunWith(const std::vector<BatchWork*>& others, int64_t) override {
    ++num_ends;
    for (BatchWork* other : others) {
      ++static_cast<Member*>(other)->num_ends;
    }
    log.Add(others.size() + 1);
  }
  BatchLog& log;
  std::atomic<int>& num_ends;
};

class WorkerPoolBatchTest : public WorkerPoolTest {
 protected:
  WorkerPoolOptions BatchOptions() {
    WorkerPoolOptions options = Options(1, 100);
    options.batch.max_size = 4;
    return options;
  }
  Job MakeMember(CancelToken cancel = CancelToken()) {
    auto member = std::make_shared<Member>(log_, num_ends_);
    Job job;
    job.cancel = cancel;
    job.run = [this, member](const absl::Status& admission, int64_t device) {
      if (admission.ok()) return member->RunWith({}, device);
      ++num_ends_;
      ++num_refused_;
    };
    job.ticket.batch = {&log_, 10};
    job.batch = member;
    return job;
  }
  void Submit(WorkerPool& pool, int count) {
    for (int i = 0; i < count; ++i) {
      EXPECT_TRUE(pool.Submit(MakeMember()).ok());
    }
  }

  BatchLog log_;
  std::atomic<int> num_ends_{0};
  std::atomic<int> num_refused_{0};
};

TEST_F(WorkerPoolBatchTest, JobsThatWaitRunTogether) {
  Waiter running;
  {
    WorkerPool pool(BatchOptions());
    ASSERT_TRUE(pool.Submit(running.MakeJob()).ok());
    running.started.get_future().wait();
    Submit(pool, 6);
    running.go.set_value();
    log_.WaitFor(2);
  }
  EXPECT_EQ(log_.sizes, (std::vector<size_t>{4, 2}));
  EXPECT_EQ(num_ends_, 6);
}

TEST_F(WorkerPoolBatchTest, NobodyHasATurnWhereABatchIsExpected) {
  Waiter running;
  WorkerPoolOptions options = BatchOptions();
  options.batch.max_wait = absl::Milliseconds(10);
  WorkerPool pool(options);
  const auto wait_until_idle = [&] {
    while (pool.load().num_running > 0) std::this_thread::yield();
  };
  ASSERT_TRUE(pool.Submit(running.MakeJob()).ok());
  running.started.get_future().wait();
  Submit(pool, 2);
  running.go.set_value();
  log_.WaitFor(1);
  wait_until_idle();
  OwnTurn turn;
  ASSERT_TRUE(pool.Submit(MakeMember(), &turn).ok());
  EXPECT_FALSE(turn);
  log_.WaitFor(2);
  wait_until_idle();
  // The last one was alone.
  ASSERT_TRUE(pool.Submit(MakeMember(), &turn).ok());
  ASSERT_TRUE(turn);
  turn();
  EXPECT_EQ(log_.sizes, (std::vector<size_t>{2, 1, 1}));
}

TEST_F(WorkerPoolBatchTest, WhoMayNotStartLeavesTheBatch) {
  Waiter running;
  {
    WorkerPool pool(BatchOptions());
    ASSERT_TRUE(pool.Submit(running.MakeJob()).ok());
    running.started.get_future().wait();
    Submit(pool, 2);
    CancelToken gone;
    ASSERT_TRUE(pool.Submit(MakeMember(gone)).ok());
    gone.Cancel();
    running.go.set_value();
    log_.WaitFor(1);
  }
  EXPECT_EQ(log_.sizes, (std::vector<size_t>{2}));
  EXPECT_EQ(num_refused_, 1);
  EXPECT_EQ(num_ends_, 3);
}

TEST_F(WorkerPoolBatchTest, LoneJobsDoNotWait) {
  WorkerPoolOptions options = BatchOptions();
  options.batch.max_wait = absl::Hours(1);
  WorkerPool pool(options);
  for (size_t i = 1; i <= 3; ++i) {
    Submit(pool, 1);
    log_.WaitFor(i);
  }
}

TEST_F(WorkerPoolBatchTest, WaitsForAsManyAsTheLastBatchHad) {
  Waiter running;
  WorkerPoolOptions options = BatchOptions();
  options.batch.max_wait = absl::Hours(1);
  {
    WorkerPool pool(options);
    ASSERT_TRUE(pool.Submit(running.MakeJob()).ok());
    running.started.get_future().wait();
    Submit(pool, 3);
    running.go.set_value();
    log_.WaitFor(1);
    Submit(pool, 3);
    log_.WaitFor(2);
    // A shutdown does not wait.
    Submit(pool, 1);
    EXPECT_TRUE(pool.Drain(absl::InfiniteFuture(), absl::InfiniteFuture()));
  }
  EXPECT_EQ(log_.sizes, (std::vector<size_t>{3, 3, 1}));
}

TEST_F(WorkerPoolBatchTest, ABatchDoesNotCostItsFirstItsDeadline) {
  Waiter running;
  {
    WorkerPool pool(BatchOptions());
    ASSERT_TRUE(pool.Submit(running.MakeJob()).ok());
    running.started.get_future().wait();
    for (int i = 0; i < 3; ++i) {
      Job job = MakeMember(
          i == 0 ? CancelToken(clock_.Now() + absl::Milliseconds(500), clock_)
                 : CancelToken());
      job.ticket.seconds = 0.2;
      ASSERT_TRUE(pool.Submit(std::move(job)).ok());
    }
    running.go.set_value();
    log_.WaitFor(2);
  }
  EXPECT_EQ(log_.sizes, (std::vector<size_t>{2, 1}));
}

TEST_F(WorkerPoolBatchTest, EveryMemberEndsExactlyOnceUnderRaces) {
  constexpr int kThreads = 4, kJobs = 500;
  std::atomic<int> num_accepted{0};
  {
    WorkerPoolOptions options = BatchOptions();
    options.limits.max_running = 2;
    options.batch.max_wait = absl::Microseconds(100);
    WorkerPool pool(options);
    std::vector<std::thread> threads;
    for (int t = 0; t < kThreads; ++t) {
      threads.emplace_back([&] {
        for (int i = 0; i < kJobs; ++i) {
          const auto id = pool.Submit(MakeMember());
          if (!id.ok()) continue;
          ++num_accepted;
          if (i % 3 == 0) pool.Cancel(*id);
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
  }
  EXPECT_EQ(num_ends_, num_accepted);
  size_t num_run = 0;
  for (const size_t size : log_.sizes) {
    EXPECT_LE(size, 4u);
    num_run += size;
  }
  EXPECT_EQ(num_run + num_refused_, static_cast<size_t>(num_accepted));
}

}  // namespace
}  // namespace limpid
