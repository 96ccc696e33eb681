// SPDX-License-Identifier: Apache-2.0
//
// A FairQueue and the threads that work it off.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "server/base/clock.h"
#include "server/base/mutex.h"
#include "server/base/status.h"
#include "server/schedule/admission_policy.h"
#include "server/schedule/fair_queue.h"

namespace limpid {

// A new id, for every call another one.
JobId NewJobId();

// What a job brings to a batch. Jobs of one group (BatchKey) bring the same
// class, so that they know each other.
class BatchWork {
 public:
  virtual ~BatchWork() = default;
  // Does the work of this and of the others, on a worker of `device`, in place
  // of their jobs' `run`. What it throws is swallowed.
  virtual void RunWith(const std::vector<BatchWork*>& others,
                       int64_t device) = 0;
};

// Work of one request.
struct Job {
  // Looked at while the job waits and when its turn comes; work that runs
  // longer looks at it by itself.
  CancelToken cancel;
  // Called exactly once for a job that was accepted, unless it runs in a batch:
  // with ok on a worker of `device` when its turn has come, else with the
  // reason why it will never run (CANCELLED, DEADLINE_EXCEEDED, UNAVAILABLE),
  // on whichever thread found that out. What it throws is swallowed.
  std::function<void(const absl::Status& admission, int64_t device)> run;
  // Who wants it, what it costs; only for pools of which that is known.
  Ticket ticket = {NewJobId()};
  // With a group in the ticket.
  std::shared_ptr<BatchWork> batch = nullptr;
};

// Told without a lock held; must be thread-safe and fast.
class PoolObserver {
 public:
  virtual ~PoolObserver() = default;
  // How long the queue is after each change. Numbers of changes close together
  // may come swapped.
  virtual void OnQueueSize(int64_t num_waiting) = 0;
  // Jobs that begin to run as one batch, 1 or more.
  virtual void OnBatch(int64_t size) = 0;
  // How many jobs a device runs after each change. As OnQueueSize.
  virtual void OnRunning(int64_t device, int64_t num_running) = 0;
};

// A job that the thread that submitted it runs itself, in a worker's place.
// Must be called, once, by that thread, soon, and with no lock held.
using OwnTurn = std::function<void()>;

struct WorkerPoolOptions {
  QueueLimits limits;  // max_running: number of workers of each device
  BatchLimits batch;
  const Clock* clock = &Clock::Real();
  PoolObserver* observer = nullptr;  // null: nobody; outlives the pool
};

// Thread-safe.
class WorkerPool {
 public:
  explicit WorkerPool(const WorkerPoolOptions& options);
  // Cancels what is left, waits until running jobs have noticed, and joins.
  ~WorkerPool();
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  // Takes a job, or refuses it without calling `run`: see RefusalStatus,
  // DrainingStatus and CheckStart; CANCELLED if its token says so. A job that
  // waits is ended as soon as it can no longer meet its deadline, which may be
  // moved to later meanwhile.
  //
  // With `own_turn`, a short job that finds the pool idle may be left to the
  // caller: own_turn is set to what it has to call then. It spares the job the
  // way to another thread and another core, which for the shortest jobs takes a
  // good part of their time. One caller at a time has a turn, and none before
  // every worker of the device has run a job: what a thread allocates when it
  // first computes should be there before there is much to do.
  absl::StatusOr<JobId> Submit(Job job, OwnTurn* own_turn = nullptr);

  // Cancels a job's token and, if it still waits, ends it before this returns.
  // Does nothing for a job that has ended. One whose token was cancelled before
  // this call and that is submitted after it is refused.
  void Cancel(JobId id);

  // A running job waits for something else than a worker: another may run
  // meanwhile, see FairQueue. Resume when it goes on. Called by the job itself.
  void Pause(JobId id);
  void Resume(JobId id);

  // Refuses new jobs from now on.
  void StopAdmission();

  // StopAdmission, and waits until all jobs have ended: those that have not by
  // `finish_by` are cancelled and get until `give_up_at` to notice (real time,
  // whatever the options' clock). Whether all have ended. May be repeated.
  bool Drain(absl::Time finish_by, absl::Time give_up_at);

  // As FairQueue::Starved.
  std::map<std::string, double> Starved() const;
  // A model has come to another device: jobs that wait may start there.
  void OnModelPlaced() { WakeWorkers(); }

  PoolLoad load() const;

 private:
  struct Waiting {
    Job job;
    absl::Time latest_start;  // as in starts_
  };

  // The threads of a device's workers.
  struct Workers {
    std::condition_variable work_available;
    // More than max_running while jobs are paused, and a little longer: a
    // thread that has computed holds buffers of megabytes.
    std::vector<std::thread> threads;
    // Threads that have run a job, those that left included.
    int64_t num_warm = 0;
  };

  // Jobs that have begun together, and what the queue was like then.
  struct Turn {
    std::vector<Job> jobs;
    int64_t device = 0;
    int64_t num_waiting = 0;
    int64_t num_running = 0;  // on the device
  };

  void Work(int64_t device);
  // Runs them to their end.
  void Run(Turn turn);
  // The turn of the only job there is, if its submitter may run it.
  std::optional<Turn> Lend(const Ticket& ticket) LIMPID_REQUIRES(mutex_);
  // The submitter's part of that.
  void RunLent(Turn turn);
  // Takes a job out of the queue whose turn has come.
  Job Begin(JobId id) LIMPID_REQUIRES(mutex_);
  // Begins companions of the one job, and waits for more where that pays.
  void Gather(std::vector<Job>& jobs, MutexLock& lock) LIMPID_REQUIRES(mutex_);
  // Runs those that can still meet their deadlines, and tells the others; how
  // many have run.
  int64_t RunBegun(const std::vector<Job>& jobs, int64_t device) const;
  // The next job to run; nothing if the thread is to end.
  std::optional<JobId> WaitForJob(int64_t device, MutexLock& lock)
      LIMPID_REQUIRES(mutex_);
  // A device's threads beyond those that are needed; negative: some are
  // missing.
  int64_t NumSpareThreads(int64_t device) const LIMPID_REQUIRES(mutex_);
  // Takes the calling thread, one of that device, out of the pool.
  void Leave(int64_t device) LIMPID_REQUIRES(mutex_);
  // All of them, on every device.
  void WakeWorkers();
  void JoinThoseThatLeft() LIMPID_REQUIRES(mutex_);
  void WatchDeadlines();
  // Takes waiting jobs out of the queue; FinishEnding must follow.
  Job TakeOut(JobId id) LIMPID_REQUIRES(mutex_);
  // Tells jobs that were taken out that they will never run.
  void FinishEnding(std::vector<std::pair<Job, absl::Status>> jobs);
  std::vector<std::pair<Job, absl::Status>> TakeLate(absl::Time now)
      LIMPID_REQUIRES(mutex_);
  PoolLoad LoadLocked() const LIMPID_REQUIRES(mutex_);
  bool IdleLocked() const LIMPID_REQUIRES(mutex_);
  bool WaitIdle(absl::Time limit);
  void CancelAll();
  void ReportQueue(int64_t num_waiting) const;
  void ReportRunning(int64_t device, int64_t num_running) const;

  const WorkerPoolOptions options_;
  mutable Mutex mutex_;
  std::condition_variable deadline_changed_;
  std::condition_variable maybe_idle_;
  // For batches that wait for more.
  std::condition_variable job_came_;
  FairQueue queue_ LIMPID_GUARDED_BY(mutex_);
  std::map<JobId, Waiting> waiting_ LIMPID_GUARDED_BY(mutex_);
  // Latest starts of waiting jobs that have one.
  std::set<std::pair<absl::Time, JobId>> starts_ LIMPID_GUARDED_BY(mutex_);
  // When starts_ is looked at next if nobody asks for it.
  absl::Time next_look_ LIMPID_GUARDED_BY(mutex_) = absl::InfiniteFuture();
  std::map<JobId, CancelToken> running_ LIMPID_GUARDED_BY(mutex_);
  // Jobs that left the queue without running and are being told so.
  int64_t num_ending_ LIMPID_GUARDED_BY(mutex_) = 0;
  // The last batch: of which group, how large.
  const void* last_group_ LIMPID_GUARDED_BY(mutex_) = nullptr;
  int64_t last_size_ LIMPID_GUARDED_BY(mutex_) = 0;
  bool draining_ LIMPID_GUARDED_BY(mutex_) = false;
  bool stopping_ LIMPID_GUARDED_BY(mutex_) = false;
  absl::Duration mean_run_time_ LIMPID_GUARDED_BY(mutex_);
  // One for each device. Elements stay; what is in them is guarded by mutex_.
  std::vector<std::unique_ptr<Workers>> workers_;
  std::thread watcher_;
  std::vector<std::thread> left_ LIMPID_GUARDED_BY(mutex_);  // to be joined
  // Whether a submitter has a turn, and all that ever had one.
  bool lent_ LIMPID_GUARDED_BY(mutex_) = false;
  std::set<std::thread::id> lenders_ LIMPID_GUARDED_BY(mutex_);
  std::chrono::steady_clock::time_point last_pause_ LIMPID_GUARDED_BY(mutex_);
};

}  // namespace limpid
