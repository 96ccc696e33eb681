// SPDX-License-Identifier: Apache-2.0
//
// A bounded queue and the threads that work it off, first come, first served.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <thread>
#include <vector>

#include "server/base/clock.h"
#include "server/base/mutex.h"
#include "server/base/status.h"
#include "server/schedule/admission_policy.h"

namespace limpid {

using JobId = uint64_t;

// Work of one request.
struct Job {
  // Looked at when the job's turn comes; work that runs longer looks at it by
  // itself.
  CancelToken cancel;
  // Called exactly once for a job that was accepted: with ok on a worker when
  // its turn has come, else with the reason why it will never run (CANCELLED,
  // DEADLINE_EXCEEDED, UNAVAILABLE), on whichever thread found that out. What
  // it throws is swallowed.
  std::function<void(const absl::Status& admission)> run;
};

// Told how long the queue is after each change, without a lock held; must be
// thread-safe and fast. Numbers of changes close together may come swapped.
class PoolObserver {
 public:
  virtual ~PoolObserver() = default;
  virtual void OnQueueSize(int64_t num_queued) = 0;
};

struct WorkerPoolOptions {
  int64_t num_workers = 1;
  int64_t max_queue_size = 256;
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

  // Takes a job, or refuses it without calling `run`: RESOURCE_EXHAUSTED or
  // UNAVAILABLE, see RefusalStatus.
  absl::StatusOr<JobId> Submit(Job job);

  // Cancels a job's token and, if it still waits, ends it before this returns.
  // Does nothing for a job that has ended.
  void Cancel(JobId id);

  // Refuses new jobs from now on.
  void StopAdmission();

  // StopAdmission, and waits until all jobs have ended: those that have not by
  // `finish_by` are cancelled and get until `give_up_at` to notice (real time,
  // whatever the options' clock). Whether all have ended. May be repeated.
  bool Drain(absl::Time finish_by, absl::Time give_up_at);

  PoolLoad load() const;

 private:
  void Work();
  PoolLoad LoadLocked() const LIMPID_REQUIRES(mutex_);
  bool IdleLocked() const LIMPID_REQUIRES(mutex_);
  bool WaitIdle(absl::Time limit);
  void CancelAll();
  void ReportQueue(int64_t num_queued) const;

  const WorkerPoolOptions options_;
  mutable Mutex mutex_;
  std::condition_variable work_available_;
  std::condition_variable maybe_idle_;
  // Ids grow, so that the map is in the order of arrival.
  std::map<JobId, Job> queue_ LIMPID_GUARDED_BY(mutex_);
  std::map<JobId, CancelToken> running_ LIMPID_GUARDED_BY(mutex_);
  // Jobs that left the queue without running and are being told so.
  int64_t num_ending_ LIMPID_GUARDED_BY(mutex_) = 0;
  JobId next_id_ LIMPID_GUARDED_BY(mutex_) = 1;
  bool draining_ LIMPID_GUARDED_BY(mutex_) = false;
  bool stopping_ LIMPID_GUARDED_BY(mutex_) = false;
  absl::Duration mean_run_time_ LIMPID_GUARDED_BY(mutex_);
  std::vector<std::thread> threads_;
};

}  // namespace limpid
